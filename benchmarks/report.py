"""Pure: a table to read and a JSON document to keep."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.figures import Figure, Judged

FORMAT = 1
HEAD = ("figure", "", "median", "p95", "ratio", "to", "bar", "holds")
PHASES = "median ms of each phase"
TO_THE_LEFT = frozenset({"figure", "", "to", PHASES})


@dataclass(slots=True)
class Report:
    """Of one go; ratios are only worth something within one."""

    started: str
    """ISO 8601."""
    plan: str
    command: Sequence[str]
    machine: dict[str, Any]
    versions: dict[str, str]
    load: Sequence[float]
    """Averages over 1, 5 and 15 minutes, at the start."""
    settings: dict[str, str]
    """Environment variables that were given."""
    warnings: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def missed(self) -> list[Figure]:
        return [figure for figure in self.figures if figure.holds is False]

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "started": self.started,
            "seconds": round(self.seconds, 1),
            "plan": self.plan,
            "command": list(self.command),
            "machine": self.machine,
            "versions": self.versions,
            "load": list(self.load),
            "settings": self.settings,
            "warnings": self.warnings,
            "figures": [figure.as_json() for figure in self.figures],
        }

    def as_text(self) -> str:
        judged = [figure for figure in self.figures if figure.bar]
        load = " ".join(f"{value:.2f}" for value in self.load)
        lines = [
            _joined(self.machine),
            _joined(self.versions),
            f"load at the start {load}; plan {self.plan}, {self.seconds:.0f} s; {self.started}",
            *([f"settings: {_joined(self.settings)}"] if self.settings else []),
            "",
            *table(self.figures),
            "",
            *phases(self.figures),
            f"{len(judged) - len(self.missed)} of {len(judged)} bars hold",
            *(f"WARNING: {warning}" for warning in self.warnings),
        ]
        return "\n".join(lines)


def table(figures: Iterable[Figure]) -> list[str]:
    return _aligned([HEAD, *(_row(figure) for figure in figures)])


def phases(figures: Iterable[Figure]) -> list[str]:
    """Where the time of each way goes; nothing when none was measured."""
    told = [figure for figure in figures if figure.phases]
    if not told:
        return []
    names = [name for name, _ in told[0].phases]
    rows = [
        (figure.name, *(_number(spent) for _, spent in figure.phases), _number(figure.median))
        for figure in told
    ]
    return [*_aligned([(PHASES, *names, "whole"), *rows]), ""]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first row is the head; numbers stand to the right."""
    head = rows[0]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if title in TO_THE_LEFT else cell.rjust(width)
            for cell, width, title in zip(row, widths, head, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def _row(figure: Figure) -> tuple[str, ...]:
    bar = ""
    if figure.bar is not None:
        bar = str(figure.bar)
        if figure.bar.judged is not Judged.RATIO:
            bar = f"{bar} {figure.unit}"
    return (
        figure.name,
        figure.unit,
        _number(figure.median),
        "" if figure.p95 is None else _number(figure.p95),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        figure.beside,
        bar,
        {None: "", True: "yes", False: "NO"}[figure.holds],
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}"


def _joined(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value)
