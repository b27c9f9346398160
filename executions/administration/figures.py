"""Figures for operators: each is read from few rows of an index, however large the table is."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection

from executions.administration.periods import first_since
from executions.models import Outcome, Status

COUNTED = 10_000
"""Of one outcome in one span; beyond that there are more, and how many more isn't looked at."""
LAST_RUNS = 1_000

_ENDED = """
    SELECT asked.outcome, asked.span, (
        SELECT count(*) FROM (
            SELECT 1 FROM executions_execution
            WHERE outcome = asked.outcome AND status IN ('finished', 'cancelled')
                AND id >= asked.first
            LIMIT %s
        ) AS few
    )
    FROM unnest(%s::text[], %s::int[], %s::bigint[]) AS asked (outcome, span, first)
"""
_TIMES = """
    SELECT percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY queue_ms),
        percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY pull_ms),
        percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY start_ms),
        percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY wall_ms),
        count(*) FILTER (WHERE started_at IS NOT NULL), count(*) FILTER (WHERE warm)
    FROM (
        SELECT queue_ms, pull_ms, start_ms, wall_ms, started_at, warm
        FROM executions_execution ORDER BY id DESC LIMIT %s
    ) AS latest
"""
_WAITING = """
    SELECT count(*), min(created_at) FROM (
        SELECT created_at FROM executions_execution WHERE status = 'queued' LIMIT %s
    ) AS few
"""


@dataclass(frozen=True, slots=True)
class Number:
    """A count that stopped at COUNTED."""

    value: int

    def __str__(self) -> str:
        return f"{self.value:,}" + (" or more" if self.value >= COUNTED else "")


@dataclass(frozen=True, slots=True)
class Ended:
    """Of the runs submitted in the last hour, and in the last day."""

    name: str
    hour: Number
    day: Number


@dataclass(frozen=True, slots=True)
class Spent:
    """Milliseconds; None where no run of those has the figure."""

    name: str
    p50: int | None
    p95: int | None


@dataclass(frozen=True, slots=True)
class Latest:
    """Of the last LAST_RUNS that were submitted."""

    times: list[Spent]
    started: int
    warm: int

    @property
    def warm_percent(self) -> int | None:
        return round(100 * self.warm / self.started) if self.started else None


@dataclass(frozen=True, slots=True)
class Waiting:
    number: Number
    oldest: datetime | None


def ended(now: datetime) -> list[Ended]:
    firsts = [first_since(now - span) for span in (timedelta(hours=1), timedelta(days=1))]
    names = {outcome.value: outcome.value for outcome in Outcome} | {"": Status.CANCELLED.value}
    asked = [
        (outcome, span, first)
        for outcome in names
        for span, first in enumerate(firsts)
        if first is not None
    ]
    columns = [list(column) for column in zip(*asked, strict=True)] or [[], [], []]
    rows = _rows(_ENDED, [COUNTED, *columns])
    found = {(outcome, span): number for outcome, span, number in rows}
    return [
        Ended(name, *(Number(found.get((outcome, span), 0)) for span in (0, 1)))
        for outcome, name in names.items()
    ]


def latest() -> Latest:
    [(*times, started, warm)] = _rows(_TIMES, [LAST_RUNS])
    names = ("waiting for a worker", "image", "sandbox", "command")
    spent = [Spent(name, *(both or (None, None))) for name, both in zip(names, times, strict=True)]
    return Latest(spent, started, warm)


def waiting() -> Waiting:
    [(number, oldest)] = _rows(_WAITING, [COUNTED])
    return Waiting(Number(number), oldest)


def _rows(sql: str, values: list[Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        found: list[Any] = cursor.fetchall()
    return found
