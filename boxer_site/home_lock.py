"""One service per home: the lock that the first one holds."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class AlreadyRunning(Exception):
    """Somebody else holds the home; the message names the process."""


@contextmanager
def home_lock(home: Path) -> Iterator[None]:
    """Hold `home` while the block runs. Raises AlreadyRunning at once, touching nothing.

    The kernel lets go of it when the process ends, however that happens; the file stays.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise AlreadyRunning(f"Boxer already runs on this home, {home} (pid {pid})") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
