"""Waiting for a host process without polling: subprocess' own time-out looks every 50 ms."""

import contextlib
import os
import select
import subprocess
from collections.abc import Sequence
from typing import IO


def environment() -> dict[str, str]:
    """What the tools of a sandbox get of ours: no variable that may hold a secret."""
    return {"PATH": os.environ.get("PATH", os.defpath)}


def run(argv: Sequence[str], *, stderr: IO[bytes], timeout: float) -> int:
    """Run a command that reads and prints nothing; its exit code. Raises OSError, TimeoutExpired.

    After a time-out the command (not what it started) is ended and reaped.
    """
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(
        argv, stdin=nothing, stdout=nothing, stderr=stderr, env=environment()
    )
    pidfd = os.pidfd_open(process.pid)
    try:
        if not select.select([pidfd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(argv[0], timeout)
        return process.wait()
    finally:
        os.close(pidfd)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
