"""What an examination finds: for each promise whether it is kept, shown by trying."""

import enum
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from executions.sandbox.spec import SandboxError

logger = logging.getLogger(__name__)


class State(enum.StrEnum):
    KEPT = "kept"
    DOUBTFUL = "doubtful"
    """It works, and there is something to know."""
    BROKEN = "broken"
    """It isn't kept, or can't be shown to be."""
    SKIPPED = "skipped"
    """There is nothing here that could break it."""


class Broken(Exception):
    pass


class Doubtful(Exception):
    pass


class Skipped(Exception):
    pass


_STATES: dict[type[Exception], State] = {
    Broken: State.BROKEN,
    Doubtful: State.DOUBTFUL,
    Skipped: State.SKIPPED,
}


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    promise: str
    state: State
    detail: str
    ms: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def line(self) -> str:
        return f"{self.state:<8} {self.name:<16} {self.promise}: {self.detail} ({self.ms} ms)"


def found_out(name: str, promise: str, show: Callable[[], str]) -> Finding:
    """What `show` shows: it tells what was seen, or raises one of the above.

    A promise that can't be examined, for whatever reason, counts as broken.
    """
    began = time.monotonic()
    state, detail = State.KEPT, ""
    try:
        detail = show()
    except (Broken, Doubtful, Skipped) as told:
        state, detail = _STATES[type(told)], str(told)
    except (SandboxError, OSError) as error:
        state, detail = State.BROKEN, f"couldn't be examined: {error}"
    except Exception as error:
        logger.exception("%s couldn't be examined", name)
        state, detail = State.BROKEN, f"couldn't be examined: {type(error).__name__}: {error}"
    return Finding(name, promise, state, detail, round((time.monotonic() - began) * 1000))
