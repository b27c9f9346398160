"""A list of runs as CSV or JSON lines, read page by page while it is sent."""

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from django.http import HttpRequest, QueryDict

from executions.api.asynchronous import in_thread
from executions.api.executions.filters import MOST, Page
from executions.api.executions.serializers import told
from executions.api.executions.views import listed
from executions.models import Execution

COLUMNS = (
    *("exec_id", "owner", "created_at", "status", "outcome", "exit_code", "signal", "error_code"),
    *("image", "image_digest", "cmd", "labels", "network", "priority", "started_at"),
    *("finished_at", "queue_ms", "pull_ms", "start_ms", "wall_ms", "cpu_ms", "max_memory_bytes"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes a spreadsheet take a cell for a formula (OWASP, CSV Injection)."""

Rows = Callable[[list[Execution]], bytes]


def page(request: HttpRequest, asked: QueryDict) -> Page:
    """The largest there is. Raises ValidationError naming the parameter."""
    asked = asked.copy()
    asked["limit"] = str(MOST)
    return listed(request, asked)


async def stream(
    request: HttpRequest, asked: QueryDict, first: Page, rows: Rows
) -> AsyncIterator[bytes]:
    """`first` and all pages after it; no connection is held between two."""
    found, asked = first, asked.copy()
    while True:
        yield rows(found.results)
        if found.next is None:
            return
        asked["cursor"] = found.next
        found = await in_thread(page, request, asked)


def csv_header() -> bytes:
    return _csv([COLUMNS])


def csv_rows(runs: list[Execution]) -> bytes:
    return _csv([_cells(run) for run in runs])


def json_lines(runs: list[Execution]) -> bytes:
    return b"".join(json.dumps(told(run)).encode() + b"\n" for run in runs)


def _csv(rows: list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


def _cells(run: Execution) -> Iterator[object]:
    found = told(run)
    for name in COLUMNS:
        value = found[name]
        if isinstance(value, list | dict):
            value = json.dumps(value)
        yield neutral(value) if isinstance(value, str) else value


def neutral(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
