"""Which sandboxes are worth having booted ahead: what was used lately, in proportion to its use."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Kind(NamedTuple):
    """What tells one idle sandbox from another."""

    digest: str
    network: str


@dataclass(slots=True)
class _Use:
    score: float
    at: float


@dataclass(slots=True)
class Demand:
    """Counts uses that fade: a third of `idle_secs` ago counts for about 37%, gone after all of it.

    Times are seconds of one monotonic clock, given by the caller.
    """

    idle_secs: float
    _uses: dict[Kind, _Use] = field(default_factory=dict)

    def use(self, kind: Kind, now: float) -> None:
        known = self._uses.get(kind)
        self._uses[kind] = _Use(1.0 + (self._faded(known, now) if known else 0.0), now)

    def forget(self, kind: Kind) -> None:
        self._uses.pop(kind, None)

    def forget_old(self, now: float) -> None:
        for kind in [kind for kind, use in self._uses.items() if now - use.at > self.idle_secs]:
            del self._uses[kind]

    def wanted(self, size: int, pinned: Mapping[Kind, int], now: float) -> dict[Kind, int]:
        """How many of each kind to have, `size` in all.

        Pinned kinds come first with their number, then one for each kind by its score, and what is
        left is shared out in proportion (largest remainder).
        """
        self.forget_old(now)
        scores = {kind: self._faded(use, now) for kind, use in self._uses.items()}
        wanted: dict[Kind, int] = {}
        left = size
        for kind, number in pinned.items():
            wanted[kind] = min(number, left)
            left -= wanted[kind]
        for kind in sorted(scores, key=lambda kind: -scores[kind]):
            if left and not wanted.get(kind):
                wanted[kind] = 1
                left -= 1
        for kind, number in _share(left, scores).items():
            wanted[kind] = wanted.get(kind, 0) + number
        return {kind: number for kind, number in wanted.items() if number}

    def _faded(self, use: _Use, now: float) -> float:
        return use.score * math.exp(-3 * (now - use.at) / self.idle_secs)


def _share(number: int, scores: Mapping[Kind, float]) -> dict[Kind, int]:
    total = sum(scores.values())
    if not total or number <= 0:
        return {}
    exact = {kind: number * score / total for kind, score in scores.items()}
    shares = {kind: math.floor(value) for kind, value in exact.items()}
    rest = number - sum(shares.values())
    for kind in sorted(exact, key=lambda kind: shares[kind] - exact[kind])[:rest]:
        shares[kind] += 1
    return shares
