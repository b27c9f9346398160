"""Reading what a command prints while it runs: a cap on each stream, a deadline over all."""

import contextlib
import enum
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from executions.sandbox import processes

CHUNK = 1 << 16


class Stop(enum.Enum):
    """Why reading stopped."""

    ENDED = "the command ended by itself"
    DEADLINE = "the deadline passed"
    OUTPUT = "a stream passed its cap"
    INTERRUPTED = "somebody asked"


@dataclass(frozen=True, slots=True)
class Captured:
    stop: Stop
    returncode: int
    stdout: bytes
    stderr: bytes
    wall_secs: float


class Capture:
    """One command from its start until all it printed is read.

    A background process of the program may hold the pipes open for as long as it lives, so the end
    of the command, not of its streams, ends the reading: what the command wrote is in the pipes by
    then, and they are emptied once more.
    """

    def __init__(self, cap: int, interrupt: int | None) -> None:
        self._cap = cap
        self._interrupt = interrupt
        self._printed: dict[int, bytearray] = {}
        self._over: set[int] = set()

    def run(self, argv: Sequence[str], timeout: float, kill: Callable[[], None]) -> Captured:
        """`kill` ends whatever the command works for. Raises OSError when it can't be started.

        The command itself is ended before, so that it has no say about the death of its sandbox.
        """
        began = time.monotonic()
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=processes.environment(),
        )
        try:
            stop = self._read(process, began + timeout)
            wall = time.monotonic() - began
            if stop is not Stop.ENDED:
                process.kill()
                kill()
                self._drain()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            stdout, stderr = self._close(process)
        return Captured(stop, process.returncode, stdout, stderr, wall)

    def _read(self, process: "subprocess.Popen[bytes]", deadline: float) -> Stop:
        pidfd = os.pidfd_open(process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                for stream in (process.stdout, process.stderr):
                    assert stream is not None  # noqa: S101 (both are pipes, see run)
                    os.set_blocking(stream.fileno(), False)
                    self._printed[stream.fileno()] = bytearray()
                    selector.register(stream.fileno(), selectors.EVENT_READ)
                selector.register(pidfd, selectors.EVENT_READ)
                if self._interrupt is not None:
                    selector.register(self._interrupt, selectors.EVENT_READ)
                return self._loop(selector, pidfd, deadline)
        finally:
            os.close(pidfd)

    def _loop(self, selector: selectors.BaseSelector, pidfd: int, deadline: float) -> Stop:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return Stop.DEADLINE
            ready = {int(key.fd) for key, _ in selector.select(left)}
            for stream in ready & self._printed.keys():
                if self._take(stream) == b"":
                    selector.unregister(stream)
            if self._over:
                return Stop.OUTPUT
            if pidfd in ready:
                self._drain()
                return Stop.OUTPUT if self._over else Stop.ENDED
            if self._interrupt is not None and self._interrupt in ready:
                return Stop.INTERRUPTED

    def _take(self, stream: int) -> bytes | None:
        """One chunk: b"" at the end of the stream, None when nothing is there now."""
        try:
            chunk = os.read(stream, CHUNK)
        except BlockingIOError:
            return None
        printed = self._printed[stream]
        room = self._cap - len(printed)
        printed += chunk[:room]
        if len(chunk) > room:
            self._over.add(stream)
        return chunk

    def _drain(self) -> None:
        """Empty the pipes without waiting, each up to its cap."""
        for stream in self._printed:
            while stream not in self._over and self._take(stream):
                pass

    def _close(self, process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
        printed = []
        for stream in (process.stdout, process.stderr):
            assert stream is not None  # noqa: S101
            printed.append(bytes(self._printed.get(stream.fileno(), b"")))
            stream.close()
        return printed[0], printed[1]
