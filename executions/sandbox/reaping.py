"""Taking the exit status of what died in a sandbox, so that no zombie stays with a worker."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

PATIENCE_SECS = 2.0
"""For dead processes that somebody else has to reap, or that are just being handed on to us."""

_NAMES = frozenset({"exe", "runsc", "busybox"})
"""Programs of a sandbox: runsc (which the kernel calls "exe" where it was started as
/proc/self/exe) and the shell before it."""


def reap(pid: int) -> bool:
    """Take the exit status of a process if it is a child of ours that has ended."""
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False


def reap_dead(pids: Iterable[int]) -> None:
    """Reap processes that were killed, and what such processes handed on to us.

    A process is gone from its cgroup a moment before it can be reaped (its last thread has to end),
    and its children become ours (see kernel.become_subreaper) only then. Those that died by
    themselves were never in `pids`.
    """
    deadline = time.monotonic() + PATIENCE_SECS
    todo = set(pids)
    pause = 0.0005
    while True:
        todo.update(_orphans())
        todo = {pid for pid in todo if not reap(pid) and Path(f"/proc/{pid}").exists()}
        if not (todo or any(_orphans())) or time.monotonic() > deadline:
            return
        time.sleep(pause)
        pause = min(pause * 2, 0.01)


_sessions: deque[int] = deque(maxlen=1024)
"""Of shells that were opened here and may have been given away: more than there are at a time."""


def know_session(pid: int) -> None:
    """What dies in the session of this child of ours is to be reaped as an orphan."""
    _sessions.append(pid)


def reap_orphans() -> None:
    """Reap dead children that nobody else waits for."""
    for pid in _orphans():
        reap(pid)


def _orphans() -> Iterator[int]:
    """Dead children of a sandbox, or in the session of its shell, wherever that was opened.

    They are in sessions of their own; what we start and wait for is in ours, or has another name.
    """
    ours = os.getsid(0)
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in map(int, file.read_text().split()):
                if _is_orphan(pid, ours):
                    yield pid


def _is_orphan(pid: int, ours: int) -> bool:
    """Fields: see proc_pid_stat(5)."""
    with contextlib.suppress(OSError):
        head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
        state, _, _, session = tail.split()[:4]
        itself = head.partition(" (")[2] in _NAMES and int(session) != ours
        return state == "Z" and (itself or int(session) in _sessions)
    return False
