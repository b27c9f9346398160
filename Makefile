# Everything a newcomer needs. As root, on Debian 12 or Ubuntu with Python 3.11 or newer.
SHELL := /bin/bash
.PHONY: help setup run test bench lint
.DEFAULT_GOAL := help

help:
	@echo 'make run     set up, start Boxer on 127.0.0.1:8080 and run a hello world'
	@echo 'make test    set up and run the tests; ARGS="tests/test_env.py -x" goes to pytest'
	@echo 'make bench   set up and measure; ARGS="--quick" or "--only warm"; see benchmarks/README.md'
	@echo 'make setup   install what is missing (system packages, .venv)'
	@echo 'make lint    ruff and mypy'

setup:
	@scripts/setup.sh

run: setup
	@exec .venv/bin/python manage.py up --demo $(ARGS)

test:
	@scripts/test.sh $(ARGS)

bench:
	@scripts/setup.sh --dev
	@exec .venv/bin/python -m benchmarks $(ARGS)

lint:
	@scripts/setup.sh --dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy .
