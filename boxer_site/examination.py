"""The doctor's quick look at this host while the service starts: nothing runs before it is done."""

import json
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings
from django.core.management import CommandError
from django.db import connections

from boxer_site.supervisor import Part, StartFailed, Supervisor
from executions.doctor import services
from executions.doctor.findings import Finding, State
from executions.doctor.probes import NAMES

logger = logging.getLogger(__name__)

TIMEOUT_SECS = 60.0
PART = "doctor"


class Examination:
    """Begins in a process of its own as early as can be, beside the start of the database."""

    def __init__(self, supervisor: Supervisor, command: list[str]) -> None:
        refuse_unknown_names(settings.BOXER_GIVE_UP)
        directory = settings.BOXER_HOME / "tmp"
        directory.mkdir(exist_ok=True, mode=0o711)
        self._supervisor = supervisor
        self._area = tempfile.TemporaryDirectory(prefix="examination-", dir=directory)
        self._report = Path(self._area.name) / "report.json"
        self._findings: list[Finding] = []
        options = ["--quick", "--host", "--report", str(self._report)]
        supervisor.start(Part(PART, lambda: [*command, *options], restart=False))

    def judge(self) -> None:
        """Wait for it. Raises StartFailed naming what isn't kept and wasn't given up."""
        try:
            self._supervisor.wait_until(self._is_done, TIMEOUT_SECS, lambda: "the doctor hangs")
            if not self._report.exists():
                raise StartFailed("the doctor died: `manage.py doctor --quick --host` says why")
            told = json.loads(self._report.read_text())
        finally:
            self._area.cleanup()
        self._findings = [Finding(**one | {"state": State(one["state"])}) for one in told]
        refuse_broken(self._findings, settings.BOXER_GIVE_UP)

    def record(self) -> None:
        """Once the database is there."""
        try:
            services.record(findings=self._findings, quick=True)
        finally:
            connections.close_all()

    def _is_done(self) -> bool:
        return self._report.exists() or PART not in self._supervisor.children


def refuse_unknown_names(names: Iterable[str]) -> None:
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise CommandError(
            f"BOXER_GIVE_UP names {', '.join(unknown)}: known are {', '.join(NAMES)}"
        )


def refuse_broken(findings: Iterable[Finding], given_up: Iterable[str]) -> None:
    broken = [finding for finding in findings if finding.state is State.BROKEN]
    for finding in broken:
        if finding.name in given_up:
            logger.warning("given up: %s: %s", finding.promise, finding.detail)
    kept_to = [finding for finding in broken if finding.name not in given_up]
    if kept_to:
        lines = [f"{one.name}: {one.promise}: {one.detail}" for one in kept_to]
        names = ",".join(one.name for one in kept_to)
        raise StartFailed(
            "\n".join(["promises that can't be kept on this host:", *lines])
            + f"\n    To start without them: BOXER_GIVE_UP={names}"
        )
