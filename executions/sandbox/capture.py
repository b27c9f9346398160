"""Reading what a command prints while it runs: a cap on each stream, a deadline over all."""

import enum
import os
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass

from executions.sandbox.runsc import exit_code
from executions.sandbox.shell import Shell
from executions.sandbox.transcript import STDERR, STDOUT, Transcript

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
    returncode: int | None
    """-N for signal N; None when the command was ended, or its client killed."""
    stdout: bytes
    stderr: bytes
    order: tuple[int, ...]
    """See Transcript.order."""
    wall_secs: float


class Capture:
    """One command from its start until all it printed is read.

    A background process of the program may hold the pipes open for as long as it lives, so the end
    of the command, not of its streams, ends the reading: what the command wrote is in the pipes by
    then, and they are emptied once more.
    """

    def __init__(
        self,
        cap: int,
        interrupt: int | None,
        stdin: bytes = b"",
        transcript: Transcript | None = None,
    ) -> None:
        self._cap = cap
        self._interrupt = interrupt
        self._stdin = memoryview(stdin)
        self._transcript = Transcript() if transcript is None else transcript
        self._kinds: dict[int, int] = {}
        self._printed: dict[int, bytearray] = {}
        self._over: set[int] = set()

    def run(self, shell: Shell, timeout: float, kill: Callable[[], None]) -> Captured:
        """Set a waiting shell going. `kill` ends whatever it works for. Raises OSError.

        What was printed until then is read before: the client may have a last word on the death of
        its sandbox, which isn't the program's.
        """
        began = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for kind, stream in ((STDOUT, shell.stdout), (STDERR, shell.stderr)):
                os.set_blocking(stream, False)
                self._kinds[stream] = kind
                self._printed[stream] = self._transcript.streams[kind]
                selector.register(stream, selectors.EVENT_READ)
            selector.register(shell.status, selectors.EVENT_READ)
            if self._interrupt is not None:
                selector.register(self._interrupt, selectors.EVENT_READ)
            shell.go()
            if self._stdin:
                os.set_blocking(shell.stdin, False)
                selector.register(shell.stdin, selectors.EVENT_WRITE)
            else:
                shell.close_stdin()
            stop = self._loop(selector, shell, began + timeout)
        wall = time.monotonic() - began
        code = None
        if stop is Stop.ENDED:
            code = exit_code(shell.told())
        else:
            self._drain()
            kill()
        printed = [bytes(self._printed[stream]) for stream in (shell.stdout, shell.stderr)]
        return Captured(stop, code, printed[0], printed[1], self._transcript.order, wall)

    def _loop(self, selector: selectors.BaseSelector, shell: Shell, deadline: float) -> Stop:
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
            if shell.stdin in ready and not self._feed(shell.stdin):
                selector.unregister(shell.stdin)
                shell.close_stdin()
            if shell.status in ready:
                self._drain()
                return Stop.OUTPUT if self._over else Stop.ENDED
            if self._interrupt is not None and self._interrupt in ready:
                return Stop.INTERRUPTED

    def _feed(self, stdin: int) -> bool:
        """Write what the pipe takes; whether there is more. A command may close it unread."""
        try:
            self._stdin = self._stdin[os.write(stdin, self._stdin) :]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return bool(self._stdin)

    def _take(self, stream: int) -> bytes | None:
        """One chunk: b"" at the end of the stream, None when nothing is there now."""
        try:
            chunk = os.read(stream, CHUNK)
        except BlockingIOError:
            return None
        printed = self._printed[stream]
        room = self._cap - len(printed)
        if kept := chunk[:room]:
            self._transcript.add(self._kinds[stream], kept)
        if len(chunk) > room:
            self._over.add(stream)
        return chunk

    def _drain(self) -> None:
        """Empty the pipes without waiting, each up to its cap."""
        for stream in self._printed:
            while stream not in self._over and self._take(stream):
                pass
