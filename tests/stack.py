"""A whole Boxer for tests: `manage.py up` in a process and a home of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import psutil

from tests.environment import new_home

MANAGE = Path(__file__).resolve().parent.parent / "manage.py"
READY = re.compile(r"^Boxer is ready at (http://\S+)$", re.MULTILINE)
START_SECS = 90.0
STOP_SECS = 10.0


def manage(
    *arguments: str, home: Path, env: Mapping[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """`manage.py …` to its end."""
    return subprocess.run(
        [sys.executable, str(MANAGE), *arguments],
        env={**os.environ, "BOXER_HOME": str(home), **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=home,
    )


class Stack:
    """Runs from `start()` to `stop()`, or as a context manager; `log` is all that it printed."""

    all: ClassVar[list["Stack"]] = []

    def __init__(
        self,
        *arguments: str,
        home: Path | None = None,
        env: Mapping[str, str] | None = None,
        command: str = "up",
        ready: re.Pattern[str] = READY,
    ) -> None:
        self.home = home or new_home()
        self.log_file = self.home / "test.log"
        self.env = {**os.environ, "BOXER_HOME": str(self.home), **(env or {})}
        self.ready = ready
        self.command = [sys.executable, str(MANAGE), command, *arguments]
        if command == "up" and "--listen" not in arguments:
            self.command += ["--listen", "127.0.0.1:0"]
        self.process: subprocess.Popen[bytes] | None = None
        self.base_url = ""
        self.all.append(self)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def launch(self) -> Self:
        """Start it without waiting for anything."""
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                start_new_session=True,
            )
        return self

    def start(self) -> Self:
        self.launch()
        deadline = time.monotonic() + START_SECS
        while not (found := self.ready.search(self.log)):
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > deadline:
                code = self.process.poll()
                log = self.log
                self.kill()
                raise RuntimeError(f"not ready ({code}):\n{log[-5000:]}")
            time.sleep(0.05)
        self.base_url = found[1] if found.groups() else ""
        return self

    def send(self, signum: int) -> None:
        assert self.process is not None
        self.process.send_signal(signum)

    def stop(self, signum: int = signal.SIGTERM, timeout: float = STOP_SECS) -> int:
        """Ask it to stop; returns its exit code. Fails when that takes too long."""
        assert self.process is not None
        self.send(signum)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            log = self.log
            self.kill()
            raise AssertionError(f"didn't stop within {timeout} s:\n{log[-5000:]}") from None

    def kill(self) -> None:
        if self.process is not None and self.running:
            self.process.kill()
            self.process.wait()

    def part(self, name: str) -> psutil.Process:
        """The process of one part: web, cluster, keeper or postgres."""
        for child in psutil.Process(self.pid).children():
            words = child.cmdline()
            if name in words or (name == "postgres" and any("/bin/postgres" in w for w in words)):
                return child
        raise LookupError(f"no part {name}")

    def get(self, path: str, timeout: float = 10) -> tuple[int, Any]:
        return self._ask(path, None, timeout)

    def run(self, timeout: float = 60, **request: object) -> tuple[int, Any]:
        """POST /run; status and answer."""
        return self._ask("/run", json.dumps(request).encode(), timeout)

    def _ask(self, path: str, body: bytes | None, timeout: float) -> tuple[int, Any]:
        url, headers = f"{self.base_url}{path}", {"Content-Type": "application/json"}
        request = urllib.request.Request(url, body, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def wait_until_ready(self, timeout: float = 20) -> None:
        deadline = time.monotonic() + timeout
        status, answer = 0, ""
        while time.monotonic() < deadline:
            try:
                status, answer = self.get("/readyz", timeout=5)
            except OSError as error:
                answer = str(error)
            if status == 200:
                return
            time.sleep(0.1)
        raise AssertionError(f"not ready again after {timeout} s: {status} {answer}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.running:
            code = self.stop()
            if kind is None:
                assert code == 0, self.log[-5000:]
