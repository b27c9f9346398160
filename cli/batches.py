"""Batches of runs: read from a file, submitted once, followed to their end."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote
from uuid import uuid4

from cli.api import Api, Unanswered, Unavailable
from cli.errors import ClientError
from cli.events import GIVE_UP_SECS, PAUSES_SECS, lines
from cli.interrupts import pause

BATCHES = "/api/v1/batches/"
MOST_BYTES = 256 << 20
"""Of a request; the service has a limit of its own, this one is for what has no end."""
OF_ALL = frozenset({"template", "entrypoint", "build_dir"})
SUBMISSIONS = 5
LOOK_SECS = 0.5
WAIT_SECS = 45
"""Of one answer with results: less than what the client waits for a byte."""


def batch_path(batch_id: str, rest: str = "") -> str:
    return f"{BATCHES}{quote(batch_id, safe='')}/{rest}"


def read(given: str) -> dict[str, Any]:
    """The request in a file, or in standard input for `-`. Raises ClientError.

    A JSON object with `runs`, a JSON list of runs, or a run a line; then the first line may have
    what is for all: `template`, `entrypoint`, `build_dir`.
    """
    name = "standard input" if given == "-" else given
    text = _text(given, name)
    try:
        found = [_parse(text)]
    except (ValueError, RecursionError) as whole:
        numbered = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        if not numbered:
            raise ClientError(f"{name}: is empty") from None
        found = [_line(name, number, line, whole, numbered[0][1]) for number, line in numbered]
    else:
        if isinstance(found[0], dict) and "runs" in found[0]:
            return found[0]
        if isinstance(found[0], list):
            return {"runs": found[0]}
    if not all(isinstance(one, dict) for one in found):
        raise ClientError(f"{name}: must have JSON objects")
    head = found.pop(0) if found[0].keys() & OF_ALL else {}
    if unknown := sorted(head.keys() - OF_ALL):
        raise ClientError(f"{name}: {unknown[0]}: not beside {min(head.keys() & OF_ALL)}")
    if not found:
        raise ClientError(f"{name}: has no runs")
    return head | {"runs": found}


def _text(given: str, name: str) -> str:
    try:
        if given == "-":
            content = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with Path(given).open("rb") as file:
                content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ClientError(f"{name}: more than {MOST_BYTES} bytes")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise ClientError(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ClientError(f"{name}: isn't UTF-8, at byte {error.start}") from None


def _parse(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} isn't JSON")


def _line(name: str, number: int, line: str, whole: Exception, first: str) -> Any:
    """One line's value; where not even the first line is a value, `whole` tells of the file."""
    try:
        return _parse(line)
    except (ValueError, RecursionError) as error:
        problem: Exception = error
        if line is first and isinstance(whole, json.JSONDecodeError):
            problem, number = whole, whole.lineno
    told = "isn't JSON: "
    if isinstance(problem, json.JSONDecodeError):
        told += f"{problem.msg} (column {problem.colno})"
    else:
        told += str(problem)
    raise ClientError(f"{name}, line {number}: {told}")


def submit(api: Api, what: str, request: dict[str, Any]) -> dict[str, Any]:
    """The batch. One whose answer was lost is sent again: by its key the service knows it.

    Raises ClientError. Signals are to be held back meanwhile.
    """
    body = json.dumps(request).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid4())}
    lost = False
    for attempt in range(SUBMISSIONS):
        try:
            found: dict[str, Any] = api.ask(
                "POST", BATCHES, what, lambda: {"content": body, "headers": headers}
            )
        except Unavailable as error:
            lost = lost or isinstance(error, Unanswered)
            if not lost:
                raise  # it was never heard
            if attempt == SUBMISSIONS - 1:
                raise ClientError(f"{error.message}; it may have been accepted") from None
            # No `pause`: a signal that is held back waits for the id of what may be there.
            time.sleep(PAUSES_SECS[min(attempt, len(PAUSES_SECS) - 1)])
        else:
            return found
    raise AssertionError("unreachable")


def follow(
    api: Api, batch: dict[str, Any], tell: Callable[[dict[str, Any]], object]
) -> Iterator[dict[str, Any]]:
    """Each result once, as it comes, however often the connection breaks; `tell` gets the batch.

    Raises ClientError, among other things when only broken connections, and no result, came for
    GIVE_UP_SECS.
    """
    batch_id, seen = batch["batch_id"], set[int]()
    failures, down_since = 0, time.monotonic()
    while len(seen) < batch["total"]:
        before = len(seen)
        try:
            # Every answer has all results from the first on: asked for only when there are more.
            batch = api.get(batch_path(batch_id), batch_id)
            tell(batch)
            if batch["ended"] or sum(batch["verdicts"].values()) > len(seen):
                for result in _results(api, batch_id):
                    if result["number"] not in seen:
                        seen.add(result["number"])
                        yield result
                        down_since = time.monotonic()
            failures, down_since = 0, time.monotonic()
            if len(seen) == before:
                pause(LOOK_SECS)
        except Unavailable as error:
            if time.monotonic() - down_since > GIVE_UP_SECS:
                told = f"{error.message}; the batch goes on: boxer batch-results {batch_id}"
                raise ClientError(told) from None
            pause(PAUSES_SECS[min(failures, len(PAUSES_SECS) - 1)])
            failures += 1


def _results(api: Api, batch_id: str) -> Iterator[dict[str, Any]]:
    path, params = batch_path(batch_id, "results/"), {"wait": str(WAIT_SECS)}
    with api.stream(path, batch_id, params=params) as response:
        for line in lines(response.iter_bytes()):
            yield json.loads(line)
