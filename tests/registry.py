"""A real registry on loopback: `docker-registry serve`, with storage of its own."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

SERVER_CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:{port}
{extra}"""

REGISTRIES_CONF = """\
unqualified-search-registries = []

[[registry]]
location = "{address}"
insecure = true

# Whatever is asked of docker.io comes from here, and from here only.
[[registry]]
prefix = "docker.io"
location = "{address}"
insecure = true
"""


class Registry:
    """Serves from `start()` to `stop()`, or as a context manager.

    `registries_conf` is for CONTAINERS_REGISTRIES_CONF: it speaks plain HTTP to this registry and
    has it stand in for docker.io. `extra` is YAML that is added to the server's configuration.
    """

    def __init__(self, *, extra: str = "") -> None:
        self.extra = extra
        self.port = 0
        self.home = Path()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def registries_conf(self) -> Path:
        return self.home / "registries.conf"

    @property
    def log(self) -> str:
        file = self.home / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start(self) -> Self:
        self.home = Path(tempfile.mkdtemp(prefix="boxer-registry-"))
        for _ in range(5):  # Another process may take the free port before the registry does.
            self.port = free_port()
            self._launch()
            if self._answers(within=15):
                conf = REGISTRIES_CONF.format(address=self.address)
                self.registries_conf.write_text(conf)
                return self
            self.pause()
        log = self.log
        self.stop()
        raise RuntimeError(f"the registry did not start: {log[-2000:]}")

    def stop(self) -> None:
        self.pause()
        shutil.rmtree(self.home, ignore_errors=True)

    def pause(self) -> None:
        """Ends the server; its contents stay for `resume()`."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def resume(self) -> None:
        self._launch()
        if not self._answers(within=15):
            raise RuntimeError(f"the registry did not start again: {self.log[-2000:]}")

    def push(self, source: Path, name: str) -> str:
        """Pushes an OCI layout directory or OCI archive as `name:tag`; returns its digest."""
        digest = self.home / "digest"
        kind = "oci" if source.is_dir() else "oci-archive"
        argv = ["skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests"]
        argv += ["--dest-tls-verify=false", "--digestfile", str(digest)]
        argv += [f"{kind}:{source}", f"docker://{self.address}/{name}"]
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise RuntimeError(f"could not push {name}: {done.stderr}")
        return digest.read_text().strip()

    def reference(self, name: str) -> str:
        return f"{self.address}/{name}"

    def _launch(self) -> None:
        config = self.home / "config.yml"
        storage = self.home / "storage"
        text = SERVER_CONFIG.format(storage=storage, port=self.port, extra=self.extra)
        config.write_text(text)
        quiet = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=quiet,
            )

    def _answers(self, *, within: float) -> bool:
        deadline = time.monotonic() + within
        while self.process is not None and time.monotonic() < deadline:
            if self.process.poll() is not None:
                return False
            try:
                with urllib.request.urlopen(f"http://{self.address}/v2/", timeout=2):
                    return True
            except urllib.error.HTTPError:
                return True  # It wants credentials: it is there.
            except OSError:
                time.sleep(0.02)
        return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
