#!/bin/bash
# Sets up and runs the tests: `make test` and .ci/run alike. Arguments go to pytest, whose code it exits with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/setup.sh --dev
exec .venv/bin/python -m pytest "$@"
