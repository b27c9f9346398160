"""`python -m benchmarks`: measures Boxer beside bare runsc and says which bars hold."""

import argparse
import datetime as dt
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.admin import measure_admin
from benchmarks.bare import RunscFailed
from benchmarks.client import ServiceFailed
from benchmarks.events import measure_events
from benchmarks.figures import Figure
from benchmarks.idle import measure_idle
from benchmarks.machine import busy_warning, machine, versions
from benchmarks.plan import FULL, NAMES, QUICK, SMOKE, WAYS, Plan, chosen
from benchmarks.pulls import measure_pulls
from benchmarks.registry import Registry, ToolFailed, registry
from benchmarks.report import Report
from benchmarks.runs import measure_bursts, measure_ways
from benchmarks.service import NotReady, given_settings
from benchmarks.stage import COMMAND, Stage, say, stage
from benchmarks.throughput import measure_throughput
from benchmarks.transfers import measure_files
from boxer_site.embedded_postgres import PostgresError
from executions.sandbox.spec import SandboxError

RESULTS = Path(__file__).with_name("results")
EXPECTED = (NotReady, PostgresError, RunscFailed, SandboxError, ServiceFailed, ToolFailed)
"""What can go wrong on a machine, and says so by itself."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    for plan, what in ((QUICK, "fewer samples"), (SMOKE, "one or two: the numbers mean nothing")):
        length.add_argument(
            f"--{plan.name}", dest="plan", action="store_const", const=plan, default=FULL, help=what
        )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help=f"this, and what it's compared to; may be repeated: {', '.join(NAMES)}",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a bar isn't held")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where the samples go, instead of results/"
    )
    parser.add_argument(
        "--archive", type=Path, metavar="FILE", help="an image with python3, as an OCI archive"
    )
    given = parser.parse_args()
    try:
        given.wanted = chosen(given.only)
    except ValueError as error:
        parser.error(f"--only {error}")
    return given


def measured(
    plan: Plan, wanted: frozenset[str], there: Stage, images: Registry
) -> Iterator[Figure]:
    """Part after part: no two things are ever measured at the same time."""
    parts: dict[str, Callable[[], Iterator[Figure]]] = {
        "runs": lambda: measure_ways(there, plan, wanted),
        "bursts": lambda: measure_bursts(there, plan),
        "throughput": lambda: measure_throughput(there, plan),
        "idle": lambda: measure_idle(there, plan),
        "files": lambda: measure_files(there, plan),
        "events": lambda: measure_events(there, plan),
        "pull": lambda: measure_pulls(there, plan, images),
    }
    for name, part in parts.items():
        if name in wanted or (name == "runs" and wanted & set(WAYS)):
            say(f"measuring {name}")
            yield from part()


def bench(given: argparse.Namespace) -> Report:
    """Raises one of EXPECTED."""
    plan, began = given.plan, time.monotonic()
    load = os.getloadavg()
    runsc = os.environ.get("BOXER_RUNSC_PATH") or "runsc"
    report = Report(
        started=dt.datetime.now().astimezone().isoformat(timespec="seconds"),
        plan=plan.name,
        command=COMMAND,
        machine=machine(),
        versions=versions(runsc),
        load=load,
        settings=given_settings(),
    )
    if warning := busy_warning(load[0]):
        report.warnings.append(warning)
        say(f"WARNING: {warning}")
    if given.wanted - {"admin"}:
        with (
            registry() as images,
            stage(given.archive, images.registries_conf, slots=max(plan.levels)) as there,
        ):
            report.figures += measured(plan, given.wanted, there, images)
    if "admin" in given.wanted:
        say("measuring admin")
        report.figures += measure_admin(plan)
    report.seconds = time.monotonic() - began
    return report


def write(report: Report, file: Path | None) -> Path:
    if file is None:
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"{report.started[:19].replace(':', '')}.json"
    file.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    return file


def main() -> int:
    given = arguments()
    if os.geteuid() != 0:
        print("bench: must be root, as runsc with limits must be", file=sys.stderr)
        return 2
    # Whoever asks us to end gets a machine back on which nothing of this is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = bench(given)
    except EXPECTED as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(report.as_text())
    print(f"\nWritten to {write(report, given.json)}")
    return 1 if given.strict and report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
