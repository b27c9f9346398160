"""A server that answers what a test says, for what a real Boxer can't be made to do on demand."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Answer:
    """Without `whole` the connection breaks where the body ends."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True
    before: Callable[[], object] = lambda: None


def told(value: Any, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **named})


def refused(status: int, error: str, **headers: str) -> Answer:
    return told({"error": error, "code": "code"}, status, **headers)


class FaultyBoxer:
    """`answers`: for "GET /path" (without its query), one after the other; the last one stays."""

    def __init__(self, answers: Mapping[str, list[Answer]]) -> None:
        self.asked: list[Asked] = []
        faulty = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                asked = Asked(self.command, self.path, dict(self.headers), self.rfile.read(length))
                faulty.asked.append(asked)
                script = answers.get(f"{self.command} {self.path.partition('?')[0]}")
                if not script:
                    answer = refused(404, "Not found.")
                else:
                    answer = script.pop(0) if len(script) > 1 else script[0]
                answer.before()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                # A length that isn't kept tells the client that the connection broke.
                self.send_header("Content-Length", str(len(answer.body) + (not answer.whole)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_DELETE = _answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
