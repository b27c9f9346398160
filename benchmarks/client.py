"""One client of the API on a connection that it keeps, as an SDK does; the clock is its own."""

import http.client
import json
import os
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

TIMEOUT_SECS = 120.0
BLOCK = 1 << 20
BOUNDARY = "boxer-bench-0d9f6a"


class ServiceFailed(Exception):
    """An answer that isn't what a benchmark can go on with."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of POST /run: what the client waited, and what the service says about it; milliseconds."""

    latency: float
    queue: float
    pull: float
    start: float
    wall: float

    @property
    def overhead(self) -> float:
        """Everything but the command."""
        return self.latency - self.wall

    @property
    def rest(self) -> float:
        """HTTP, the database and waking each other: what no phase of the answer covers."""
        return self.overhead - self.queue - self.pull - self.start


class Client:
    """Not for several threads at once."""

    def __init__(self, base_url: str) -> None:
        self._connection = http.client.HTTPConnection(
            urlsplit(base_url).netloc, timeout=TIMEOUT_SECS
        )

    def close(self) -> None:
        self._connection.close()

    def run(self, expected: bytes, **request: object) -> Answer:
        """POST /run, to the last byte of the answer. Raises ServiceFailed."""
        body = json.dumps(request).encode()
        headers = {"Content-Type": "application/json"}
        self._connect()
        started = time.perf_counter()
        status, content = self._ask("POST", "/run", body, headers)
        latency = (time.perf_counter() - started) * 1000
        answer: dict[str, Any] = json.loads(content)
        if status != 200 or answer["exit_code"] or answer["stdout"].encode() != expected:
            raise ServiceFailed(f"POST /run: {status} {content.decode(errors='replace')[:500]}")
        phases = {name: float(answer[f"{name}_ms"]) for name in ("queue", "pull", "start", "wall")}
        return Answer(latency=latency, **phases)

    def upload(self, path: str, size: int) -> float:
        """POST /files with contents that nobody has stored before; seconds."""
        head, tail = _around(path)
        headers = {
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
            "Content-Length": str(len(head) + size + len(tail)),
        }
        self._connect()
        started = time.perf_counter()
        status, content = self._ask("POST", "/files", _body(head, size, tail), headers)
        took = time.perf_counter() - started
        if status != 200:
            raise ServiceFailed(f"POST /files: {status} {content.decode(errors='replace')[:500]}")
        return took

    def download(self, path: str, size: int) -> float:
        """GET /files, read to the end and thrown away; seconds."""
        self._connect()
        started = time.perf_counter()
        self._connection.request("GET", f"/files?path={quote(path)}")
        response = self._connection.getresponse()
        received = 0
        while block := response.read(BLOCK):
            received += len(block)
        took = time.perf_counter() - started
        if response.status != 200 or received != size:
            raise ServiceFailed(f"GET /files: {response.status}, {received} bytes of {size}")
        return took

    def _connect(self) -> None:
        """The server closes a connection that is idle for seconds; no time is charged for that."""
        if self._connection.sock is not None:
            if not select.select([self._connection.sock], [], [], 0)[0]:
                return
            self._connection.close()
        self._connection.connect()

    def _ask(
        self, method: str, path: str, body: bytes | Iterator[bytes], headers: dict[str, str]
    ) -> tuple[int, bytes]:
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        return response.status, response.read()


def _around(path: str) -> tuple[bytes, bytes]:
    """What stands before and after a file's contents in a multipart body."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="path"\r\n\r\n{path}\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode(), f"\r\n--{BOUNDARY}--\r\n".encode()


def _body(head: bytes, size: int, tail: bytes) -> Iterator[bytes]:
    """In blocks, so that it's the service whose memory is looked at and not ours."""
    block = os.urandom(min(BLOCK, size))
    yield head
    for start in range(0, size, BLOCK):
        yield block[: size - start]
    yield tail
