"""A shell that waits in a sandbox, held by its descriptors: who has those has the run."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from executions.sandbox import processes
from executions.sandbox.reaping import know_session

STATUS_BYTES = 4096
STDERR = 2


@dataclass(frozen=True, slots=True)
class Shell:
    """Ends of pipes; `pid` is the host's process behind them, 0 when it isn't a child of ours."""

    stdin: int
    stdout: int
    stderr: int
    status: int
    """Readable when the command has ended; exit_code() knows what it tells."""
    pid: int

    def go(self) -> None:
        """Set it going; its command finds on stdin what comes then. Raises OSError when it is gone.

        A shell reads byte by byte from a pipe, so it takes nothing of what is the command's.
        """
        os.write(self.stdin, b"\n")

    def close_stdin(self) -> None:
        # A number may be another descriptor's by the time it is closed a second time.
        empty = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(empty, self.stdin, inheritable=False)
        os.close(empty)

    def told(self) -> bytes:
        """What `status` tells, after it has become readable."""
        with contextlib.suppress(ConnectionError):
            return os.read(self.status, STATUS_BYTES)
        return b""

    def close(self) -> None:
        for descriptor in (self.stdin, self.stdout, self.stderr, self.status):
            with contextlib.suppress(OSError):
                os.close(descriptor)


class Pipes:
    """stdin, stdout and stderr of a command; what keep() hasn't given away is closed in the end."""

    def __init__(self) -> None:
        (stdin, ours_in), (ours_out, stdout), (ours_err, stderr) = (os.pipe() for _ in range(3))
        self.theirs = (stdin, stdout, stderr)
        self._ours: tuple[int, ...] = (ours_in, ours_out, ours_err)

    def keep(self) -> tuple[int, int, int]:
        (stdin, stdout, stderr), self._ours = self._ours, ()
        return stdin, stdout, stderr

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (*self.theirs, *self._ours):
            os.close(descriptor)


def spawn_shell(argv: Sequence[str]) -> Shell:
    """Start a command on new pipes, its descriptor 3 being `status`, in a session of its own.

    Raises OSError.
    """
    with Pipes() as pipes:
        ours_status, status = os.pipe()
        # Above all that they are moved to, so that none is moved over another.
        high = [
            fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
            for descriptor in (*pipes.theirs, status)
        ]
        try:
            pid = os.posix_spawnp(
                argv[0],
                list(argv),
                processes.environment(),
                file_actions=[
                    *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable()),
                    *((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(high)),
                ],
                setsid=True,
            )
        except OSError:
            os.close(ours_status)
            raise
        finally:
            for descriptor in (status, *high):
                os.close(descriptor)
        know_session(pid)
        return Shell(*pipes.keep(), ours_status, pid)


def _inheritable() -> list[int]:
    """Descriptors that somebody made for a child of theirs: none of a sandbox's business."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (numbers, not paths)
        with contextlib.suppress(OSError):
            if int(name) > STDERR and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def send_shell(connection: socket.socket, message: bytes, shell: Shell, kernel: int) -> None:
    """Hand a shell and its sandbox's pidfd over to another process."""
    descriptors = [shell.stdin, shell.stdout, shell.stderr, shell.status, kernel]
    socket.send_fds(connection, [message], descriptors)


def receive_shell(connection: socket.socket, size: int) -> tuple[bytes, Shell, int] | None:
    """What send_shell() sent; None when the other side has none to give."""
    message, descriptors, _, _ = socket.recv_fds(connection, size, 5)
    if len(descriptors) != 5:
        for descriptor in descriptors:
            os.close(descriptor)
        return None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    stdin, stdout, stderr, status, kernel = descriptors
    return message, Shell(stdin, stdout, stderr, status, 0), kernel
