"""Boxer's HTTP API: asks again where that is safe, and makes one clear line of what goes wrong."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from cli import config
from cli.errors import ClientError
from cli.interrupts import pause
from cli.terminal import say

ATTEMPTS = 5
"""At a service that says it is busy (503): it has accepted nothing then."""
LONGEST_PAUSE_SECS = 30
CONNECT_SECS = 10.0
ANSWER_SECS = 60.0
EXECUTIONS = "/api/v1/executions/"


class Unavailable(ClientError):
    """No connection, or 502, 503, 504: it may be there again in a moment."""


class Unanswered(Unavailable):
    """The connection broke, or nothing came, after the request was sent: it may have been heard."""


def execution_path(exec_id: str, rest: str = "") -> str:
    return f"{EXECUTIONS}{quote(exec_id, safe='')}/{rest}"


class Api:
    """A context manager: its connections are closed at the end."""

    def __init__(self, place: config.Place) -> None:
        self.url = place.url
        self._has_token = bool(place.token)
        headers = {"User-Agent": "boxer-cli"}
        if place.token:
            headers["Authorization"] = f"Bearer {place.token}"
        timeout = httpx.Timeout(ANSWER_SECS, connect=CONNECT_SECS)
        # Redirects aren't followed: a token is for the place that it was given for.
        self._http = httpx.Client(base_url=place.url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str, what: str, **params: Any) -> Any:
        given = {name: value for name, value in params.items() if value not in (None, [])}
        return self.ask("GET", path, what, lambda: {"params": given})

    def post(self, path: str, what: str, body: object = None) -> Any:
        return self.ask("POST", path, what, lambda: {} if body is None else {"json": body})

    def ask(
        self, method: str, path: str, what: str, prepare: Callable[[], Mapping[str, Any]]
    ) -> Any:
        """The answer's JSON. `what` is told first in errors; `prepare` makes each try's request.

        Raises ClientError.
        """
        for attempt in range(1, ATTEMPTS + 1):
            with self._telling(what):
                response = self._http.request(method, path, **prepare())
            if response.status_code != HTTPStatus.SERVICE_UNAVAILABLE or attempt == ATTEMPTS:
                break
            secs = min(_retry_after(response) or attempt, LONGEST_PAUSE_SECS)
            say(f"{what}: {_message(response)}; trying again in {secs} s")
            pause(secs)
        self._check(response, what)
        return self._json(response, what)

    @contextmanager
    def stream(
        self,
        path: str,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        """An answer that is read as it comes. Raises ClientError, also while it is read."""
        with (
            self._telling(what),
            self._http.stream("GET", path, headers=headers, params=params) as response,
        ):
            if not response.is_success:
                response.read()
            self._check(response, what)
            yield response

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectTimeout:
            raise Unavailable(f"{self.url}: no connection within {CONNECT_SECS:.0f} s") from None
        except httpx.ConnectError as error:
            raise Unavailable(f"{self.url}: can't connect: {_reason(error)}") from None
        except httpx.TimeoutException:
            raise Unanswered(f"{what}: {self.url} doesn't answer any more") from None
        except httpx.TransportError as error:
            raise Unanswered(
                f"{what}: the connection to {self.url} broke: {_reason(error)}"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ClientError(f"{what}: {self.url}: {error}") from None

    def _check(self, response: httpx.Response, what: str) -> None:
        status = response.status_code
        if response.is_success:
            return
        message = _message(response)
        match status:
            case HTTPStatus.UNAUTHORIZED if self._has_token:
                raise ClientError(f"{self.url} doesn't accept the token: {message} (boxer login)")
            case HTTPStatus.UNAUTHORIZED:
                raise ClientError(f"{self.url} wants a token: boxer login, or set BOXER_TOKEN")
            case HTTPStatus.FORBIDDEN:
                raise ClientError(f"{what}: not allowed: {message}")
            case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                raise ClientError(f"{what}: too large: {message}")
            case HTTPStatus.TOO_MANY_REQUESTS:
                raise ClientError(f"{what}: {message}{_when(response)}")
            case 502 | 503 | 504:
                raise Unavailable(f"{what}: {message}{_when(response)}")
            case _ if response.has_redirect_location:
                place = response.headers["Location"]
                raise ClientError(f"{self.url} sends elsewhere: {place}; is that its URL?")
        raise ClientError(f"{what}: {message}")

    def _json(self, response: httpx.Response, what: str) -> Any:
        if response.status_code == HTTPStatus.NO_CONTENT:
            return None
        try:
            return response.json()
        except ValueError:
            raise ClientError(f"{what}: {self.url} answers, but not as Boxer does") from None


def _message(response: httpx.Response) -> str:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("error"), str):
        return str(answer["error"])
    return f"{response.url.copy_with(query=None)} answered {response.status_code}"


def _retry_after(response: httpx.Response) -> int:
    given = response.headers.get("Retry-After", "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 8 else 0


def _when(response: httpx.Response) -> str:
    if not (secs := _retry_after(response)):
        return ""
    moment = datetime.now().astimezone() + timedelta(seconds=secs)
    return f" (try again in {secs} s, at {moment:%H:%M:%S})"


def _reason(error: Exception) -> str:
    """`[Errno 111] Connection refused` without what only programs need."""
    return str(error).partition("] ")[2] or str(error) or type(error).__name__
