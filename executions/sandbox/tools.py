"""Runs one command line tool at a time: within a deadline, watched, and never left behind."""

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECS = 0.25
STDERR_LIMIT = 16384
STDOUT_LIMIT = 8 << 20
SHOWN_LINES = 4
SHOWN_CHARACTERS = 1000


class ToolMissing(Exception):
    """The program isn't installed."""


class ToolTimeout(Exception):
    """The deadline passed; the tool was killed."""


@dataclass(frozen=True, slots=True)
class Finished:
    returncode: int
    stdout: bytes
    stderr: str
    """The end of it, without credentials."""

    @property
    def file_too_large(self) -> bool:
        """Whether the tool ended at the bound of a file's size."""
        return self.returncode == -signal.SIGXFSZ or "file too large" in self.stderr

    @property
    def last_lines(self) -> str:
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return " | ".join(lines[-SHOWN_LINES:])[-SHOWN_CHARACTERS:] or "it said nothing"


def run(
    argv: Sequence[str],
    *,
    area: Path,
    deadline: float,
    watch: Callable[[], None] | None = None,
    file_limit: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Finished:
    """Runs `argv` in the directory `area`, which also takes its output; no shell, no stdin.

    `deadline` is of time.monotonic. `watch` is called about four times a second and ends the tool
    by raising. No file that it writes grows beyond `file_limit` bytes. The tool dies with us.
    Raises ToolMissing, ToolTimeout and what `watch` raises; never leaves a process.
    """
    prefix = ["setpriv", "--pdeathsig", "KILL", "--"]
    if file_limit is not None:
        prefix = ["prlimit", f"--fsize={file_limit}", "--", *prefix]
    out, err = area / "stdout", area / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [*prefix, *argv],
            cwd=area,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            umask=0o022,
        )
        try:
            _wait(process, deadline, watch)
        finally:
            # Unreaped, it still owns its group: nobody else can have got its number.
            os.killpg(process.pid, signal.SIGKILL)
            returncode = process.wait()
    finished = Finished(returncode, _head(out), without_credentials(_tail(err)))
    if returncode == 127 and f"failed to execute {argv[0]}" in finished.stderr:
        raise ToolMissing(f"{argv[0]} is not installed")
    return finished


def _wait(
    process: subprocess.Popen[bytes], deadline: float, watch: Callable[[], None] | None
) -> None:
    """Until it has ended, without reaping it."""
    descriptor = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ToolTimeout
            if poll.poll(min(POLL_SECS, left) * 1000):
                return
            if watch is not None:
                watch()
    finally:
        os.close(descriptor)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(STDOUT_LIMIT)


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - STDERR_LIMIT))
        return file.read(STDERR_LIMIT).decode("utf-8", "replace")


def without_credentials(text: str) -> str:
    """Takes out what stands for a user in a URL, query strings (signatures), and headers."""
    text = re.sub(r"://[^/\s@\"']*@", "://", text)
    text = re.sub(r"(https?://[^\s\"'?]*)\?[^\s\"']*", r"\1?…", text)
    return re.sub(r"(?i)\b(bearer|basic|password|token)([ =:]+)[^\s\"']{8,}", r"\1\2…", text)
