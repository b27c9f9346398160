"""A registry on loopback, with an image in it that is another one each time it is asked for."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECS = 15.0
TOOL_SECS = 120.0
CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {storage}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
REGISTRIES_CONF = """\
unqualified-search-registries = []

[[registry]]
location = "127.0.0.1:{port}"
insecure = true
"""


class ToolFailed(Exception):
    """A tool ended badly; the message has the end of what it said."""


class Registry:
    """Starts with `start()`; `stop()` leaves nothing."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="boxer-bench-registry-"))
        self.port = _free_port()
        self.registries_conf = self.home / "registries.conf"
        self.registries_conf.write_text(REGISTRIES_CONF.format(port=self.port))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        config = self.home / "config.yml"
        config.write_text(CONFIG.format(storage=self.home / "storage", port=self.port))
        with (self.home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(config)],  # noqa: S607 (wherever PATH has it)
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ToolFailed(f"docker-registry: {(self.home / 'log').read_text()[-500:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def reference(self, tag: str) -> str:
        return f"127.0.0.1:{self.port}/bench/python:{tag}"

    def serve(self, archive: Path, tags: list[str]) -> None:
        """The image of an archive under every tag, with a digest of its own each."""
        layout = self.home / "layout"
        run_tool(
            ["skopeo", "--insecure-policy", "copy", f"oci-archive:{archive}", f"oci:{layout}:image"]
        )
        for tag in tags:
            label = f"boxer.bench={tag}"
            run_tool(
                [
                    "umoci",
                    "config",
                    f"--image={layout}:image",
                    f"--tag={tag}",
                    "--config.label",
                    label,
                ]
            )
            source, target = f"oci:{layout}:{tag}", f"docker://{self.reference(tag)}"
            run_tool(
                ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", source, target]
            )

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/", timeout=2):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False


@contextmanager
def registry() -> Iterator[Registry]:
    """One that doesn't run yet: most measurements don't need it."""
    made = Registry()
    try:
        yield made
    finally:
        made.stop()


def run_tool(argv: list[str]) -> float:
    """Seconds that it took. Raises ToolFailed."""
    started = time.perf_counter()
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TOOL_SECS
    )
    took = time.perf_counter() - started
    if done.returncode:
        raise ToolFailed(f"{' '.join(argv)}: {done.stderr.strip()[-500:]}")
    return took


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
