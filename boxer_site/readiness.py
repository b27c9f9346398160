"""Asks a service over HTTP whether it is ready, and remembers what it said."""

from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

TIMEOUT_SECS = 3.0
ANSWER_BYTES = 2000


class ReadyProbe:
    """GETs `url`, past any proxy; `answer` is what came last."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answer = "it doesn't answer"
        self._opener = build_opener(ProxyHandler({}))

    def is_ready(self) -> bool:
        try:
            with self._opener.open(self.url, timeout=TIMEOUT_SECS) as response:
                return bool(response.status == 200)
        except HTTPError as error:
            with error:
                body = error.read(ANSWER_BYTES).decode(errors="replace").strip()
            self.answer = f"{error.code} {body}"
        except (OSError, HTTPException) as error:
            self.answer = str(error)
        return False
