"""The command line client for tests: with pipes, or in a terminal of its own."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
BOXER = (sys.executable, "-m", "cli")
SECS = 90.0


def environment(url: str, home: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Nothing of the developer's own: no configuration, no token, no wish for colours."""
    kept = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    ours = {"HOME": str(home), "PYTHONPATH": str(ROOT), "BOXER_URL": url, "TERM": "xterm"}
    return {name: value for name, value in {**kept, **ours, **(env or {})}.items() if value}


def boxer(
    url: str,
    home: Path,
    *arguments: str,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """`boxer …` in the directory `home`, to its end."""
    return subprocess.run(
        [*BOXER, *arguments],
        input=stdin,
        capture_output=True,
        cwd=home,
        env=environment(url, home, env),
        timeout=SECS,
    )


class Terminal:
    """A program in a pseudo-terminal; `seen` is all that it showed so far."""

    def __init__(self, *command: str, cwd: Path, env: Mapping[str, str]) -> None:
        self._main, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 200, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            # Ctrl-C comes from the terminal only to whose controlling terminal it is.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(inside)
        self._bytes = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._main, 1 << 16)
            except OSError:  # EIO: nobody has the other side open any more
                return
            if not data:
                return
            self._bytes += data

    @property
    def seen(self) -> str:
        return self._bytes.decode(errors="replace")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + SECS
        while text not in self.seen:
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.seen}"
            assert self.process.poll() is None or text in self.seen, self.seen
            time.sleep(0.02)

    def press(self, keys: str) -> None:
        os.write(self._main, keys.encode())

    def wait(self) -> int:
        code = self.process.wait(SECS)
        self._reader.join(SECS)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(SECS)
        self._reader.join(SECS)
        os.close(self._main)
