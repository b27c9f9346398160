"""Ends what outlives a supervisor that was killed: `python -IS last_resort.py DESCRIPTOR MARK`.

When the other end of the pipe is gone, every process whose environment holds MARK has been asked to
stop by the kernel (PR_SET_PDEATHSIG). Those that are still there after a grace are killed.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

GRACE_SECS = 8.0
POLL_SECS = 0.2


def marked(mark: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def main(descriptor: int, mark: bytes) -> None:
    # Nobody else ends this: it goes when there is nothing left for it to do.
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    while os.read(descriptor, 1):
        pass
    deadline = time.monotonic() + GRACE_SECS
    while time.monotonic() < deadline and marked(mark):
        time.sleep(POLL_SECS)
    for _ in range(20):  # A process may fork between being seen and being killed.
        remaining = marked(mark)
        for pid in remaining:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not remaining:
            return
        time.sleep(0.05)


if __name__ == "__main__":
    main(int(sys.argv[1]), os.fsencode(sys.argv[2]))
