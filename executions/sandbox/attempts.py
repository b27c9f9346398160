"""One attempt for many who want the same: the first does it, the others share its outcome.

An attempt is a locked file. Who finishes it writes the outcome into it, unlinks it and lets go:
those who waited for this attempt still have the file open and read how it ended, while the next to
come begin afresh. The kernel lets go of a dead process's lock, and then one of the waiting goes on.
"""

import errno
import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUTCOME_LIMIT = 65536


class WaitedTooLong(Exception):
    """The lock wasn't to be had before the deadline."""


def lock(descriptor: int, kind: int, deadline: float) -> None:
    """flock(2) until `deadline` (time.monotonic). Raises WaitedTooLong."""
    pause = 0.005
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EINTR):
                raise
        else:
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise WaitedTooLong
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, 0.1)


def unlock(descriptor: int) -> None:
    """Unlocks before it closes: a child that was forked meanwhile shares the descriptor."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def same_file(descriptor: int, path: Path) -> bool:
    """Whether `path` still names what the descriptor has open."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


@dataclass(slots=True)
class Attempt:
    """It is yours to do. `close` exactly once, in the end."""

    descriptor: int
    path: Path

    def close(self, outcome: dict[str, Any] | None) -> None:
        """Ends it; those who waited get `outcome`, or start over where it is None."""
        try:
            if outcome is not None:
                os.pwrite(self.descriptor, json.dumps(outcome).encode()[:OUTCOME_LIMIT], 0)
            self.path.unlink(missing_ok=True)
        finally:
            unlock(self.descriptor)


def join(path: Path, deadline: float) -> Attempt | dict[str, Any]:
    """An attempt to carry out, or the outcome of the one that was under way.

    Raises WaitedTooLong.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            lock(descriptor, fcntl.LOCK_EX, deadline)
        except BaseException:
            os.close(descriptor)
            raise
        if same_file(descriptor, path):
            os.ftruncate(descriptor, 0)  # What a process wrote that died before it unlinked.
            return Attempt(descriptor, path)
        content = os.pread(descriptor, OUTCOME_LIMIT, 0)
        unlock(descriptor)
        if content:
            outcome: dict[str, Any] = json.loads(content)
            return outcome


def clear(directory: Path) -> int:
    """Removes files of attempts that died; returns how many."""
    cleared = 0
    for path in directory.iterdir():
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            lock(descriptor, fcntl.LOCK_EX, 0)
            if same_file(descriptor, path):
                path.unlink()
                cleared += 1
        except WaitedTooLong:
            pass
        finally:
            unlock(descriptor)
    return cleared
