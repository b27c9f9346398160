"""A whole Boxer to be measured: `manage.py up` in a home of its own."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.client import Client
from executions.sandbox import pool

MANAGE = Path(__file__).resolve().parent.parent / "manage.py"
READY = re.compile(r"^Boxer is ready at (http://\S+)$", re.MULTILINE)
START_SECS = 90.0
STOP_SECS = 20.0
SETTLE_SECS = 60.0
POLL_SECS = 0.02
PARTS = ("web", "keeper", "pool", "cluster")
"""Of `manage.py`, each in a process below `up`."""
OURS = ("BOXER_HOME", "BOXER_LISTEN", "BOXER_EMBEDDED_POSTGRES", "DATABASE_URL")


class NotReady(Exception):
    """The service didn't start, stop or come to rest; the message has the end of its log."""


def given_settings() -> dict[str, str]:
    """Settings of whoever runs the benchmark: they hold, and the report shows them."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith("BOXER_") and name not in OURS
    }


class Service:
    """Starts with `start()`; `stop()` leaves no process, and removes the home."""

    def __init__(self, settings: Mapping[str, str], *, pool_size: int) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="boxer-bench-"))
        self.pool_size = pool_size
        self.base_url = ""
        self._process: subprocess.Popen[bytes] | None = None
        inherited = {name: value for name, value in os.environ.items() if name not in OURS}
        self._env = inherited | {"BOXER_HOME": str(self.home), "NO_PROXY": "127.0.0.1"}
        self._env |= {**settings, "BOXER_POOL_SIZE": str(pool_size)}

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        file = self.home / "up.log"
        return file.read_text(errors="replace")[-3000:] if file.exists() else ""

    def manage(self, *arguments: str) -> None:
        """`manage.py …` to its end. Raises NotReady."""
        command = [sys.executable, str(MANAGE), *arguments]
        done = subprocess.run(
            command, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise NotReady(f"manage.py {' '.join(arguments)}: {done.stderr[-1000:]}")

    def launch(self) -> None:
        """Start it without waiting for anything."""
        with (self.home / "up.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(MANAGE), "up", "--listen", "127.0.0.1:0"],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECS
        while not (found := READY.search(self.log)):
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NotReady(f"the service doesn't start:\n{self.log}")
            time.sleep(POLL_SECS)
        self.base_url = found[1]

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise NotReady(f"the service doesn't stop; see {self.home}") from None
        shutil.rmtree(self.home, ignore_errors=True)

    # ── While it runs ────────────────────────────────────────────────────────────────────────────

    def is_settled(self) -> bool:
        """The pool is full, and nothing of an earlier run is left to be tidied up."""
        if self.pool_size:
            status = pool.status(self.home / "pool.sock")
            return status is not None and status["idle"] >= self.pool_size and status["runs"] <= 0
        return not list((self.home / "workers").glob("*/*"))

    def settle(self) -> None:
        """Wait for that, so that what is measured next has the machine to itself."""
        deadline = time.monotonic() + SETTLE_SECS
        while not self.is_settled():
            if time.monotonic() > deadline:
                raise NotReady(f"the service doesn't come to rest:\n{self.log}")
            time.sleep(POLL_SECS)

    def web(self) -> int:
        """The pid of the web process."""
        for child in psutil.Process(self.pid).children():
            if "web" in child.cmdline():
                return child.pid
        raise NotReady("there is no web process")

    def parts(self) -> dict[str, list[psutil.Process]]:
        """Everything that runs for it, by what `up` has started; the pool's children apart.

        Those are the idle sandboxes and what holds them.
        """
        up = psutil.Process(self.pid)
        parts = {"up": [up]}
        for child in up.children():
            name = _part_name(child)
            below = child.children(recursive=True)
            parts[name] = [child] if name == "pool" else [child, *below]
            if name == "pool":
                parts["sandboxes"] = below
        return parts

    @contextmanager
    def client(self) -> Iterator[Client]:
        with contextlib.closing(Client(self.base_url)) as client:
            yield client


def share_images(source: Service, other: Service) -> None:
    """Both use one store of images: an image store is made for many processes."""
    (other.home / "images").symlink_to(source.home / "images")


def _part_name(process: psutil.Process) -> str:
    words = process.cmdline()
    names = [word for word in words if word in PARTS]
    if names:
        return names[0]
    return "postgres" if any("/bin/postgres" in word for word in words) else "others"
