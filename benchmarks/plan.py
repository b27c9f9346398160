"""How long to measure what: every loop of the benchmark has a bound here."""

from collections.abc import Sequence
from dataclasses import dataclass

WAYS = ("bare", "cold", "warm", "input", "inputs", "output")
"""Of running one command, measured in turn."""
PARTS = ("bursts", "throughput", "idle", "files", "pull", "events", "admin")
NAMES = WAYS + PARTS


@dataclass(frozen=True, slots=True)
class Plan:
    name: str
    rounds: int
    """Each round runs every way once."""
    round_secs: float
    """No further round begins after this."""
    bursts: int
    burst_secs: float
    levels: tuple[int, ...]
    """Concurrent clients."""
    ramp_secs: float
    """Load that isn't measured yet: what the pool had in stock is used up meanwhile."""
    window_secs: float
    idle_secs: float
    sizes_mb: tuple[int, ...]
    transfers: int
    pulls: int
    executions: int
    """Rows in the table by which the admin's pages are asked for."""
    requests: int
    """For each of those pages."""
    lines: int
    """Printed by the run that is watched."""


FULL = Plan(
    name="full",
    rounds=40,
    round_secs=95,
    bursts=15,
    burst_secs=30,
    levels=(1, 2, 4, 8, 16),
    ramp_secs=1.5,
    window_secs=5,
    idle_secs=20,
    sizes_mb=(1, 10, 100),
    transfers=3,
    pulls=3,
    executions=1_000_000,
    requests=30,
    lines=60,
)
QUICK = Plan(
    name="quick",
    rounds=8,
    round_secs=18,
    bursts=3,
    burst_secs=6,
    levels=(1, 8),
    ramp_secs=1,
    window_secs=2,
    idle_secs=6,
    sizes_mb=(1, 10, 100),
    transfers=1,
    pulls=1,
    executions=100_000,
    requests=20,
    lines=20,
)
SMOKE = Plan(
    name="smoke",
    rounds=2,
    round_secs=20,
    bursts=1,
    burst_secs=5,
    levels=(1, 2),
    ramp_secs=0.2,
    window_secs=0.5,
    idle_secs=1,
    sizes_mb=(1, 2),
    transfers=1,
    pulls=1,
    executions=2_000,
    requests=3,
    lines=20,
)
"""Shows that everything works; its numbers mean nothing."""


def chosen(only: Sequence[str]) -> frozenset[str]:
    """What is to be measured, with what it is compared to; everything when nothing is named.

    Each item is a name or several with commas between. Raises ValueError for a bad one.
    """
    names = ",".join(only).split(",") if only else list(NAMES)
    for name in names:
        if name not in NAMES:
            raise ValueError(f"{name!r}: must be one of {', '.join(NAMES)}")
    wanted = set(names)
    if wanted & set(WAYS):
        wanted.add("bare")
    return frozenset(wanted)
