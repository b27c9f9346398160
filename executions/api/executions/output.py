"""stdout and stderr as the bytes they are, whole or in part, also while the run goes on."""

import asyncio
from dataclasses import dataclass

from django.db import connection
from django.http import HttpResponse
from rest_framework.request import Request

from executions import notifications
from executions.api.asynchronous import in_kept_thread
from executions.events import services as events
from executions.models import UNFINISHED, Execution
from filestore.api.error_shape import error_response
from filestore.api.ranges import ByteRange, Unsatisfiable, byte_range

FIRST_WORD_SECS = 2.0
"""A worker publishes what there is within milliseconds of being asked."""
STREAMS = ("stdout", "stderr")
HEADERS = {
    "Content-Type": "application/octet-stream",
    "Accept-Ranges": "bytes",
    "Cache-Control": "private, no-cache",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}


@dataclass(frozen=True, slots=True)
class Contents:
    size: int
    part: ByteRange | None
    data: bytes
    etag: str = ""


def response(request: Request, execution: Execution, stream: int) -> HttpResponse:
    """Of a run that has ended."""
    name = STREAMS[stream]
    etag = f'"{execution.exec_id}-{name}"'
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT octet_length({name}) FROM executions_executionoutput"  # noqa: S608
            " WHERE execution_id = %s",
            [execution.pk],
        )
        row = cursor.fetchone()
        size = row[0] if row else 0
        try:
            part = _part(request, size, etag)
        except Unsatisfiable:
            return _unsatisfiable(name, size)
        start, length = (part.start, part.length) if part else (0, size)
        cursor.execute(
            f"SELECT substring({name} FROM %s FOR %s)"  # noqa: S608 (one of two constants)
            " FROM executions_executionoutput WHERE execution_id = %s",
            [start + 1, length, execution.pk],
        )
        row = cursor.fetchone()
    return _response(request, name, Contents(size, part, bytes(row[0]) if row else b"", etag))


async def response_so_far(request: Request, execution: Execution, stream: int) -> HttpResponse:
    """Of a run that goes on: what it had printed when it was asked."""
    name = STREAMS[stream]
    async with notifications.watching(execution.exec_id) as bell:
        await in_kept_thread(events.watch, execution_id=execution.pk, exec_id=execution.exec_id)
        printed, ended = await in_kept_thread(_printed, execution.pk, stream)
        now = asyncio.get_running_loop().time
        # One bound for all: usage, for one thing, rings the bell every second.
        until = now() + FIRST_WORD_SECS
        while not printed and not ended and await bell.wait(max(0.0, until - now())):
            printed, ended = await in_kept_thread(_printed, execution.pk, stream)
    if ended:
        return await in_kept_thread(response, request, execution, stream)
    try:
        part = _part(request, len(printed), "")
    except Unsatisfiable:
        return _unsatisfiable(name, len(printed))
    data = printed[part.start : part.start + part.length] if part else printed
    return _response(request, name, Contents(len(printed), part, data))


def _printed(execution_id: int, stream: int) -> tuple[bytes, bool]:
    """What was published of one stream, and whether the run has ended."""
    found, position = [], 0
    while look := events.look(execution_id=execution_id, position=position):
        found += [piece.data for piece in look.pieces if piece.stream == stream]
        if look.ended or not look.full or not look.pieces:
            return b"".join(found), look.ended
        position = look.pieces[-1].end
    return b"".join(found), True


def is_unfinished(execution: Execution) -> bool:
    return execution.status in UNFINISHED


def _part(request: Request, size: int, etag: str) -> ByteRange | None:
    asked = request.headers
    return byte_range(asked.get("Range"), asked.get("If-Range"), size=size, etag=etag)


def _response(request: Request, name: str, contents: Contents) -> HttpResponse:
    part = contents.part
    headers = {
        **HEADERS,
        "Content-Length": str(len(contents.data)),
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    if contents.etag:
        headers["ETag"] = contents.etag
    if part:
        headers["Content-Range"] = part.content_range(contents.size)
    data = b"" if request.method == "HEAD" else contents.data
    return HttpResponse(data, status=206 if part else 200, headers=headers)


def _unsatisfiable(name: str, size: int) -> HttpResponse:
    return error_response(
        416,
        f"Range: {name} has {size} bytes",
        "range_not_satisfiable",
        headers={"Content-Range": f"bytes */{size}"},
    )
