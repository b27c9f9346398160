"""A run as it goes: server-sent events (WHATWG HTML, 9.2), gone on with where they broke off."""

import base64
import binascii
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cli.api import Api, Unavailable, execution_path
from cli.errors import ClientError
from cli.interrupts import pause

GIVE_UP_SECS = 60.0
LASTED_SECS = 5.0
"""What a connection must last, or bring an event, to count as one."""
PAUSES_SECS = (0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    data: dict[str, Any]
    id: str = ""

    @property
    def output(self) -> bytes:
        """Of `stdout` and `stderr`. Raises ClientError."""
        try:
            return base64.b64decode(self.data["base64"], validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise ClientError(f"the server sent a malformed event {self.name!r}") from None


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Without their ends, which are LF or CR LF here; what has no end isn't a line."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.removesuffix(b"\r") for line in whole)


def parse(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Events that are whole; comments and fields that nobody knows are passed over."""
    name, data, number = "", [], ""
    for line in lines(chunks):
        if line:
            field, _, value = line.decode(errors="replace").partition(":")
            value = value.removeprefix(" ")
            match field:
                case "event":
                    name = value
                case "data":
                    data.append(value)
                case "id":
                    number = value
        else:
            if data:
                yield Event(name or "message", _object("\n".join(data)), number)
            name, data, number = "", [], ""


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ClientError("the server sent an event that isn't a JSON object")
    return found


def follow(api: Api, exec_id: str) -> Iterator[Event]:
    """From the start to `end`, each once, however often the connection breaks.

    Raises ClientError, among other things when there was no connection for GIVE_UP_SECS.
    """
    last, failures, down_since = "", 0, time.monotonic()
    path = execution_path(exec_id, "events/")
    while True:
        opened = time.monotonic()
        problem = Unavailable(f"{exec_id}: {api.url} ended the events before the run")
        try:
            headers = {"Last-Event-ID": last} if last else {}
            with api.stream(path, exec_id, headers=headers) as response:
                for event in parse(response.iter_bytes()):
                    failures, opened = 0, 0.0
                    last = event.id or last
                    yield event
                    if event.name == "end":
                        return
        except Unavailable as error:
            problem = error
        now = time.monotonic()
        if now - opened > LASTED_SECS:
            failures, down_since = 0, now
        if now - down_since > GIVE_UP_SECS:
            raise ClientError(f"{problem.message}; the run goes on: boxer logs -f {exec_id}")
        pause(PAUSES_SECS[min(failures, len(PAUSES_SECS) - 1)])
        failures += 1
