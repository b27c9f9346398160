"""Prints an apt source of this machine's Debian backports, from the mirror it uses already."""

# ruff: noqa: INP001

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from executions.sandbox.debian_image import ImageNotBuilt, machine_source


def main() -> int:
    try:
        source = machine_source()
    except ImageNotBuilt as error:
        sys.stderr.write(f"{error}\n")
        return 1
    lines = ["Types: deb", f"URIs: {source.uri}", f"Suites: {source.suite}-backports"]
    lines.append("Components: main")
    keyring = re.search(r"signed-by=([^\s\]]+)", source.options)
    if keyring:
        lines.append(f"Signed-By: {keyring[1]}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
