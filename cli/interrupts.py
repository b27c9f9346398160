"""Signals that end the client, in good order: held back while an answer must not get lost."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STEP_SECS = 0.1


class Interrupted(BaseException):
    """Not an Exception: no handler of errors may take it for one."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def code(self) -> int:
        return 128 + self.signum


class _State:
    held_back = False
    waiting: int | None = None


def _handle(signum: int, _frame: FrameType | None) -> None:
    if _State.held_back and _State.waiting is None:
        _State.waiting = signum
        if signum == signal.SIGINT:
            os.write(2, b"boxer: waiting for the answer; Ctrl-C again ends at once\n")
    else:
        raise Interrupted(signum)


def install() -> None:
    for signum in ENDING:
        # What nohup and a shell's `&` ignore stays ignored.
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _handle)


@contextmanager
def held_back() -> Iterator[None]:
    """A first signal waits for `check()`; a second one ends the client all the same."""
    _State.held_back = True
    try:
        yield
    finally:
        _State.held_back = False


def check() -> None:
    """Raises Interrupted when a signal has been held back."""
    signum, _State.waiting = _State.waiting, None
    if signum is not None:
        raise Interrupted(signum)


def pause(secs: float) -> None:
    """Sleep; raises Interrupted even where signals are held back: nothing is under way."""
    until = time.monotonic() + secs
    check()
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(STEP_SECS, left))
        check()
