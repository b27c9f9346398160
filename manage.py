#!/usr/bin/env python
"""Boxer's command line: `manage.py up`, `worker`, `images` and Django's own commands."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "boxer_site.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        # Its message names the variable; a traceback would bury it.
        sys.exit(f"boxer: {error}")


if __name__ == "__main__":
    main()
