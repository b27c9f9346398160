"""A registry that does what a real one can't be made to do on demand: lie, dawdle, and count."""

import hashlib
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.made_images import INDEX, MANIFEST


class LyingRegistry:
    """Serves the images of OCI layouts on loopback, and whatever `answers` says instead.

    `answers` maps a path to (status, body). While a path is in `hanging` its answer doesn't come;
    `release` lets all of them go. `asked` counts the requests of each path.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.answers: dict[str, tuple[int, bytes]] = {"/v2/": (200, b"{}")}
        self.hanging: set[str] = set()
        self.asked: Counter[str] = Counter()
        self.release = threading.Event()
        self.reached = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    def serve(self, layout: Path, name: str, tag: str = "latest") -> str:
        """Serves a layout's image as `name:tag`; returns its digest."""
        index = json.loads((layout / "index.json").read_text())
        digest: str = index["manifests"][0]["digest"]
        for blob in (layout / "blobs" / "sha256").iterdir():
            self.answers[f"/v2/{name}/blobs/sha256:{blob.name}"] = (200, blob.read_bytes())
        manifest = (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
        self.manifest(name, tag, manifest)
        return digest

    def manifest(self, name: str, tag: str, raw: bytes) -> str:
        """Serves these bytes as a manifest, by tag and by digest."""
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self.answers[f"/v2/{name}/manifests/{tag}"] = (200, raw)
        self.answers[f"/v2/{name}/manifests/{digest}"] = (200, raw)
        return digest

    def downloads(self) -> int:
        return sum(count for path, count in self.asked.items() if "/blobs/" in path)

    def __enter__(self) -> Self:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.asked[self.path] += 1
                if self.path in registry.hanging:
                    registry.reached.set()
                    registry.release.wait(60)
                status, body = registry.answers.get(self.path, (404, b'{"errors": []}'))
                kind = "application/octet-stream"
                if "/manifests/" in self.path:
                    kind = INDEX if b'"manifests"' in body else MANIFEST
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # The client was killed while it waited.

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        conf = f'[[registry]]\nlocation = "{self.address}"\ninsecure = true\n'
        self.registries_conf = self.home / "lying-registries.conf"
        self.registries_conf.write_text(conf)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
