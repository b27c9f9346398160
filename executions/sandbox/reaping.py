"""Taking the exit status of what died in a sandbox, so that no zombie stays with a worker."""

import contextlib
import os
import time
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

PATIENCE_SECS = 0.5
"""For dead processes that somebody else has to reap, or that are just being handed on to us."""

_ITSELF = "exe"
"""What the kernel calls a program that was started as /proc/self/exe: all that runsc leaves."""


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


def reap_orphans(sessions: Container[int] = ()) -> None:
    """Reap dead children that nobody else waits for: what runsc, not we, started.

    They are in a session that runsc made, or in one of `sessions`; what we start ourselves and wait
    for goes by another name.
    """
    for pid in _orphans(sessions):
        reap(pid)


def _orphans(sessions: Container[int] = ()) -> Iterator[int]:
    ours = os.getsid(0)
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in map(int, file.read_text().split()):
                if _is_orphan(pid, ours, sessions):
                    yield pid


def _is_orphan(pid: int, ours: int, sessions: Container[int]) -> bool:
    """Fields: see proc_pid_stat(5)."""
    with contextlib.suppress(OSError):
        head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")
        state, _, _, session = tail.split()[:4]
        known = int(session) in sessions
        itself = head.partition(" (")[2] == _ITSELF and int(session) != ours
        return state == "Z" and (known or itself)
    return False
