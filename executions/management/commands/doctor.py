"""`manage.py doctor`: tries each promise on this host, and says which are kept."""

import json
import signal
from argparse import ArgumentParser
from pathlib import Path
from types import FrameType

from django.core.management.base import BaseCommand, CommandError

from executions.doctor.findings import State
from executions.doctor.probes import examine_host, examine_stores


class Command(BaseCommand):
    help = "Prove by doing it that sandboxes, limits, unpacker, database and storage hold."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--quick", action="store_true", help="What takes a second or two.")
        parser.add_argument("--host", action="store_true", help="No database and no storage.")
        parser.add_argument("--json", action="store_true", help="One JSON document to stdout.")
        parser.add_argument("--report", type=Path, metavar="FILE", help="The JSON to a file alone.")

    def handle(
        self, *, quick: bool, host: bool, json: bool, report: Path | None, **_: object
    ) -> None:
        """Exits with 1 when a promise is broken."""
        # What a signal ends is taken apart in good order: sandboxes leave mounts and cgroups else.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, leave)
        found = examine_host(quick=quick)
        if not host:
            found += examine_stores()
        broken = [finding.name for finding in found if finding.state is State.BROKEN]
        if report is not None:
            write_whole(report, as_json([finding.as_dict() for finding in found]))
            return  # whoever reads it decides
        if json:
            self.stdout.write(as_json([finding.as_dict() for finding in found]))
        else:
            self.stdout.write("\n".join(finding.line for finding in found))
        if broken:
            raise CommandError(f"not kept: {', '.join(broken)}")


def leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def as_json(value: object) -> str:
    return json.dumps(value, indent=2)


def write_whole(file: Path, text: str) -> None:
    """Whoever waits for the file never sees half of it."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(text)
    temporary.replace(file)
