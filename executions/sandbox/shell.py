"""A shell that waits in a sandbox, held by its descriptors: who has those has the run."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from executions.sandbox import processes
from executions.sandbox.reaping import know_session

CODE_BYTES = 256
STDERR = 2


@dataclass(frozen=True, slots=True)
class Shell:
    """Ends of pipes; `pid` is the host's process behind them, 0 when it isn't a child of ours."""

    stdin: int
    stdout: int
    stderr: int
    status: int
    """Gives the command's exit code in decimal; anything else means that its client was killed."""
    pid: int

    def go(self) -> None:
        """Set it going, with nothing more on stdin. Raises OSError when it is gone."""
        os.write(self.stdin, b"\n")
        self.close_stdin()

    def close_stdin(self) -> None:
        # A number may be another descriptor's by the time it is closed a second time.
        empty = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(empty, self.stdin, inheritable=False)
        os.close(empty)

    def exit_code(self) -> int | None:
        """After `status` has become readable. None when the client was killed."""
        code = os.read(self.status, CODE_BYTES).strip()
        return int(code) if code.isdigit() else None

    def close(self) -> None:
        for descriptor in (self.stdin, self.stdout, self.stderr, self.status):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def spawn_shell(argv: Sequence[str]) -> Shell:
    """Start a command on new pipes, its descriptor 3 being `status`, in a session of its own.

    Raises OSError.
    """
    (stdin, ours_in), (ours_out, stdout) = os.pipe(), os.pipe()
    (ours_err, stderr), (ours_status, status) = os.pipe(), os.pipe()
    theirs = (stdin, stdout, stderr, status)
    ours = (ours_in, ours_out, ours_err, ours_status)
    # Above all that they are moved to, so that none is moved over another.
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in theirs]
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
        for descriptor in ours:
            os.close(descriptor)
        raise
    finally:
        for descriptor in (*theirs, *high):
            os.close(descriptor)
    know_session(pid)
    return Shell(*ours, pid)


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
