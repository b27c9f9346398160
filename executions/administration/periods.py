"""Years, months and days in which something was submitted, found by an index alone."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.db.models import QuerySet

from executions.models import Execution

DRIFT = 1_000
"""Numbers are given out in the order of submission only nearly: whoever waited for a lock is later
than its time says, by less than so many others."""

_SHAPE = re.compile(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?", re.ASCII)
_AMONG = """
    SELECT asked.number FROM unnest(%s::int[], %s::timestamptz[], %s::timestamptz[])
        AS asked (number, begins, ends)
    CROSS JOIN LATERAL (
        SELECT 1 FROM executions_execution
        WHERE created_at >= asked.begins AND created_at < asked.ends
        ORDER BY created_at LIMIT 1
    ) AS found
    ORDER BY asked.number
"""


@dataclass(frozen=True, slots=True)
class Period:
    """A year, month or day in UTC."""

    text: str
    """2026, 2026-11 or 2026-11-28."""
    begins: datetime
    ends: datetime

    @property
    def title(self) -> str:
        return self.begins.strftime({4: "%Y", 7: "%B %Y", 10: "%-d %B %Y"}[len(self.text)])

    @property
    def around(self) -> "list[Period]":
        """Its year, its month and itself, as far as they are there."""
        return [parse(self.text[:length]) for length in (4, 7, 10) if length <= len(self.text)]

    @property
    def parts(self) -> "list[Period]":
        """The months of a year, the days of a month."""
        if len(self.text) == 4:
            return [parse(f"{self.text}-{month:02}") for month in range(1, 13)]
        if len(self.text) == 7:
            days = (self.ends - self.begins).days
            return [parse(f"{self.text}-{day:02}") for day in range(1, days + 1)]
        return []


def parse(text: str) -> Period:
    """Raises ValueError."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no year, month or day")
    year, month, day = (int(part or 0) for part in found.groups())
    begins = datetime(year, month or 1, day or 1, tzinfo=UTC)
    if day:
        ends = begins + timedelta(days=1)
    elif month:
        ends = (begins + timedelta(days=31)).replace(day=1)
    else:
        ends = begins.replace(year=year + 1)
    return Period(text, begins, ends)


def offered(text: str | None, now: datetime) -> list[Period]:
    """What can be chosen at `text`: what it lies in, itself, and what of it isn't empty."""
    if not text:
        return _not_empty(_years(now))
    try:
        period = parse(text)
        return period.around + _not_empty(period.parts)
    except (ValueError, OverflowError):
        return []


def within(rows: QuerySet[Execution], begins: datetime, ends: datetime) -> QuerySet[Execution]:
    """Those submitted from `begins` until before `ends`, in an order of numbers that stays cheap.

    Without bounds on the number PostgreSQL might walk from the newest to an old day.
    """
    found = rows.filter(created_at__gte=begins, created_at__lt=ends)
    first, after = first_since(begins), first_since(ends)
    if first is None:
        return found.none()
    found = found.filter(pk__gte=first - DRIFT)
    return found if after is None else found.filter(pk__lte=after + DRIFT)


def first_since(moment: datetime) -> int | None:
    """The number of the first one submitted from then on."""
    by_time = Execution.objects.filter(created_at__gte=moment).order_by("created_at")
    return by_time.values_list("pk", flat=True).first()


def _years(now: datetime) -> list[Period]:
    by_time = Execution.objects.order_by("created_at")
    oldest = by_time.values_list("created_at", flat=True).first()
    first = now.year if oldest is None else min(oldest.year, now.year)
    return [parse(f"{year:04}") for year in range(first, now.year + 1)]


def _not_empty(periods: list[Period]) -> list[Period]:
    numbers = list(range(len(periods)))
    bounds = [[one.begins for one in periods], [one.ends for one in periods]]
    with connection.cursor() as cursor:
        cursor.execute(_AMONG, [numbers, *bounds])
        return [periods[number] for (number,) in cursor.fetchall()]
