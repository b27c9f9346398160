"""How far batches are, and what has come of their cases."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, F, Q

from executions.batches.models import Batch, Case, Phase
from executions.models import UNFINISHED

SKIPPED = "skipped"
REMOVED = "removed"
RESULTS_AT_ONCE = 20
"""Each may have printed some MiB."""


@dataclass(slots=True)
class Counts:
    total: int = 0
    statuses: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    outcomes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    verdicts: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def counts(batches: Sequence[Batch]) -> dict[int, Counts]:
    """By batch; one query for all of them."""
    found = {batch.pk: Counts() for batch in batches}
    phases = {batch.pk: batch.phase for batch in batches}
    rows = (
        Case.objects.filter(batch__in=found)
        .values("batch_id", "execution__status", "execution__outcome", "verdict")
        .annotate(number=Count("pk"))
        .order_by()
    )
    for row in rows:
        of_batch = found[row["batch_id"]]
        number = row["number"]
        of_batch.total += number
        status = row["execution__status"] or without_execution(phases[row["batch_id"]])
        of_batch.statuses[status] += number
        if row["execution__outcome"]:
            of_batch.outcomes[row["execution__outcome"]] += number
        if row["verdict"]:
            of_batch.verdicts[row["verdict"]] += number
    return found


def without_execution(phase: str) -> str:
    """The status of a case that has no execution (any more)."""
    return {Phase.BUILDING: "queued", Phase.QUEUED: REMOVED}.get(Phase(phase), phase)


def told(batch: Batch, of_batch: Counts) -> dict[str, Any]:
    return {
        "batch_id": batch.batch_id,
        "owner": batch.owner.username,
        "created_at": batch.created_at,
        "phase": batch.phase,
        "error": batch.error,
        "entrypoint": batch.entrypoint.exec_id if batch.entrypoint else None,
        "ended": batch.phase != Phase.BUILDING and not of_batch.statuses.keys() & set(UNFINISHED),
        "total": of_batch.total,
        "statuses": dict(of_batch.statuses),
        "outcomes": dict(of_batch.outcomes),
        "verdicts": dict(of_batch.verdicts),
    }


def results(batch: Batch, sent: set[int]) -> tuple[list[dict[str, Any]], bool]:
    """Some more of what has ended and is judged, by its end, and whether that is the rest.

    `sent` holds the numbers of cases that were told, and gets these.
    """
    cases = batch.cases.exclude(number__in=sent)
    # What has ended since it was judged comes with the next look.
    over = Q(execution=None) | ~Q(verdict="")
    ended = cases.filter(over) if batch.phase != Phase.BUILDING else cases.none()
    rows = ended.select_related("execution__output").order_by(
        F("execution__finished_at").asc(nulls_last=True), "number"
    )
    found = [_result(batch, case) for case in rows[:RESULTS_AT_ONCE]]
    sent.update(line["number"] for line in found)
    return found, len(sent) == batch.cases.count()


def _result(batch: Batch, case: Case) -> dict[str, Any]:
    execution = case.execution
    if execution is None:
        names = ("exec_id", "exit_code", "signal", "wall_ms", "cpu_ms", "max_memory_bytes")
        line: dict[str, Any] = dict.fromkeys(names)
        line |= {"outcome": "", "stdout": "", "stderr": "", "error": batch.error}
        line["status"] = without_execution(batch.phase)
    else:
        output = getattr(execution, "output", None)
        line = {
            "exec_id": execution.exec_id,
            "status": execution.status,
            "outcome": execution.outcome,
            "exit_code": execution.exit_code,
            "signal": execution.signal,
            "wall_ms": execution.wall_ms,
            "cpu_ms": execution.cpu_ms,
            "max_memory_bytes": execution.max_memory_bytes,
            "error": execution.error,
            "stdout": bytes(output.stdout).decode("utf-8", "replace") if output else "",
            "stderr": bytes(output.stderr).decode("utf-8", "replace") if output else "",
        }
    return {
        "number": case.number,
        **line,
        "verdict": case.verdict,
        "remark": case.remark,
    }
