"""What one's runs of the last days came to: by day and outcome, waiting and running time, CPU."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db import connection
from django.utils import timezone

from executions.quotas import usage
from executions.quotas.terms import Terms, terms_of

DAYS = 14
MOST = 10_000
"""Newest runs that are looked at: by the owner's index, however long a history is."""
HOUR = "Runs in an hour"
KINDS = ("succeeded", "failed", "limit", "infra_error", "cancelled", "unfinished")

_RECENT = """
    WITH newest AS MATERIALIZED (
        SELECT * FROM executions_execution WHERE owner_id = %(owner)s
        ORDER BY id DESC LIMIT %(most)s
    ), recent AS (
        SELECT *, (created_at AT TIME ZONE 'UTC')::date AS day, CASE
            WHEN outcome = 'exited' AND exit_code = 0 THEN 'succeeded'
            WHEN outcome IN ('exited', 'signalled') THEN 'failed'
            WHEN outcome IN ('timed_out', 'out_of_memory', 'output_limit') THEN 'limit'
            WHEN outcome = 'infra_error' THEN 'infra_error'
            WHEN status = 'cancelled' THEN 'cancelled'
            ELSE 'unfinished' END AS kind
        FROM newest WHERE created_at >= %(since)s
    )
"""
_BY_DAY = f"{_RECENT} SELECT day, kind, count(*) FROM recent GROUP BY day, kind"  # noqa: S608 (constants)
_TIMES = f"""{_RECENT} SELECT count(*),
    percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY queue_ms),
    percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY wall_ms),
    coalesce(sum(cpu_ms), 0)::bigint FROM recent"""  # noqa: S608 (constants)


@dataclass(frozen=True, slots=True)
class Part:
    """Of a day's bar: a rectangle in a chart 100 high."""

    kind: str
    runs: int
    x: float
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Day:
    day: date
    runs: int
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds; None where nothing was measured. `wait` and `wall` are p50 and p95."""

    runs: int
    wait: list[int | None]
    wall: list[int | None]
    cpu_ms: int

    @property
    def cut(self) -> bool:
        """Whether there may be more runs than were looked at."""
        return self.runs >= MOST


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    used: float
    limit: float | None
    size: bool = False
    """In bytes."""


def days(owner_id: int) -> list[Day]:
    """Each of the last DAYS, UTC, the oldest first."""
    today = timezone.now().date()
    with connection.cursor() as cursor:
        cursor.execute(_BY_DAY, _parameters(owner_id))
        counts = {(day, kind): runs for day, kind, runs in cursor.fetchall()}
    dates = [today - timedelta(days=ago) for ago in reversed(range(DAYS))]
    totals = [sum(counts.get((day, kind), 0) for kind in KINDS) for day in dates]
    highest = max(totals) or 1
    return [_day(at, day, counts, highest) for at, day in enumerate(dates)]


def _day(at: int, day: date, counts: dict[tuple[date, str], int], highest: int) -> Day:
    parts, below = [], 0
    for kind in KINDS:
        if runs := counts.get((day, kind), 0):
            below += runs
            y, height = 100 - 100 * below / highest, 100 * runs / highest
            parts.append(Part(kind, runs, at + 0.1, round(y, 2), round(height, 2)))
    return Day(day, below, parts)


def times(owner_id: int) -> Times:
    with connection.cursor() as cursor:
        cursor.execute(_TIMES, _parameters(owner_id))
        runs, wait, wall, cpu_ms = cursor.fetchone()
    return Times(runs, wait or [None, None], wall or [None, None], cpu_ms)


def _parameters(owner_id: int) -> dict[str, int | datetime]:
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    since = midnight - timedelta(days=DAYS - 1)
    return {"owner": owner_id, "most": MOST, "since": since}


def quota(owner_id: int) -> list[Bar]:
    terms, used = terms_of(owner_id) or Terms(), usage.used(owner_id)
    size, files = usage.stored(owner_id)
    bars = [
        Bar("Runs at a time", used.claimed, terms.runs_at_a_time),
        Bar("Waiting runs", used.waiting(terms.runs_at_a_time), terms.runs_queued),
        Bar(HOUR, used.runs_of_hour, terms.runs_an_hour),
        Bar("CPU seconds today", round(used.cpu_ms / 1000, 1), terms.cpu_secs_a_day),
        Bar("Stored", size, terms.stored_bytes, size=True),
        Bar("Stored files", files, terms.stored_files),
    ]
    # Runs of an hour are counted for those alone whom a quota bounds in them.
    return [bar for bar in bars if bar.limit is not None or bar.name != HOUR]
