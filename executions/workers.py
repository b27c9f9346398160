"""Workers of one home, each known by a lock that it holds for as long as it lives."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process: `directory` holds its sandboxes, the lock beside it says that it lives.

    The kernel drops the lock when the process ends, however it ends: who can take it knows.
    """

    home: Path
    name: str
    host_id: str

    @property
    def directory(self) -> Path:
        return self.home / "workers" / self.name

    @property
    def lock(self) -> Path:
        return self.directory.with_suffix(".lock")


def register(home: Path, host_id: str) -> Worker:
    """Make this process a worker; the lock goes with it."""
    worker = Worker(home, f"{os.getpid()}-{secrets.token_hex(4)}", host_id)
    worker.directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Locked before it has its name, so that nobody ever sees it free.
    temporary = worker.directory.with_suffix(".new")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, host_id.encode())
    temporary.rename(worker.lock)
    worker.directory.mkdir(mode=0o700)
    return worker


@contextmanager
def dead_workers(home: Path) -> Iterator[list[Worker]]:
    """Workers that have ended without tidying up; theirs is ours to remove meanwhile."""
    with contextlib.ExitStack() as stack:
        found = []
        for lock in sorted((home / "workers").glob("*.lock")):
            try:
                descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            host_id = os.pread(descriptor, 64, 0).decode()
            found.append(Worker(home, lock.name.removesuffix(".lock"), host_id))
        yield found


def forget(worker: Worker) -> None:
    """Remove an ended worker's (empty) directory, then its lock."""
    with contextlib.suppress(FileNotFoundError):
        worker.directory.rmdir()
    worker.lock.unlink(missing_ok=True)
