"""Pure: samples become figures, and figures are held against their bars."""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class Judged(enum.StrEnum):
    """What of a figure its bar is about."""

    MEDIAN = "median"
    RATIO = "ratio"
    P95 = "p95"


@dataclass(frozen=True, slots=True)
class Bar:
    limit: float
    judged: Judged = Judged.RATIO
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report. `beside` says what the ratio is to."""

    key: str
    name: str
    unit: str
    samples: tuple[float, ...]
    ratio: float | None = None
    beside: str = ""
    bar: Bar | None = None
    phases: tuple[tuple[str, float], ...] = ()
    """Of a run, with the median of each."""

    @property
    def median(self) -> float:
        return percentile(self.samples, 50)

    @property
    def p95(self) -> float | None:
        """None where there are too few samples for it to mean anything but their maximum."""
        return percentile(self.samples, 95) if len(self.samples) > 2 else None

    @property
    def holds(self) -> bool | None:
        if self.bar is None:
            return None
        value = {
            Judged.RATIO: self.ratio,
            Judged.MEDIAN: self.median,
            Judged.P95: self.p95,
        }[self.bar.judged]
        return value is not None and self.bar.holds(value)

    def as_json(self) -> dict[str, Any]:
        bar = self.bar and {
            "limit": self.bar.limit,
            "kind": "at_least" if self.bar.at_least else "at_most",
            "judged": self.bar.judged.value,
        }
        return {
            "key": self.key,
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "p95": self.p95,
            "count": len(self.samples),
            "ratio": self.ratio,
            "beside": self.beside or None,
            "bar": bar,
            "holds": self.holds,
            "phases": dict(self.phases) or None,
            "samples": [round(sample, 4) for sample in self.samples],
        }


def percentile(samples: Sequence[float], percent: float) -> float:
    """Interpolated between the two nearest, as numpy does by default."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def ratio(samples: Sequence[float], others: Sequence[float]) -> float:
    """Of their medians."""
    return percentile(samples, 50) / percentile(others, 50)


def rate(cycles: Sequence[float], concurrency: int) -> float:
    """Runs per second of `concurrency` clients that are always busy, each cycle taking so long.

    That is Little's law. To count what ends within a time would be off by what is under way at its
    edges, which is a lot where a run takes seconds.
    """
    return concurrency * len(cycles) / sum(cycles)
