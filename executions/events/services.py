"""The watchers' side: says that somebody watches, and reads what there is to see."""

from dataclasses import dataclass

from django.db import connection

from executions.events.models import Chunk, Watch
from executions.events.pieces import Piece, pieces
from executions.models import UNFINISHED, Execution
from executions.notifications import WATCH_CHANNEL

READ_CHUNKS = 64
"""Pieces read at once; each has at most 64 KiB."""
KEPT_SECS = 60.0
"""How long what was published stays after the end: the output itself is kept by then."""

_WATCH = """
    WITH watched AS (
        INSERT INTO events_watch (execution_id, since)
        SELECT id, now() FROM executions_execution
        WHERE id = %s AND status IN ('queued', 'pulling', 'running')
        ON CONFLICT (execution_id) DO UPDATE SET since = events_watch.since
        RETURNING execution_id
    )
    SELECT pg_notify(%s, %s) FROM watched
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What there was at one moment: more pieces may follow at once when `full`."""

    status: str
    pieces: list[Piece]
    ended: bool
    full: bool = False


def watch(*, execution_id: int, exec_id: str) -> None:
    """Have its worker publish all that it prints, from the start. May be repeated."""
    with connection.cursor() as cursor:
        cursor.execute(_WATCH, [execution_id, WATCH_CHANNEL, exec_id])


def look(*, execution_id: int, position: int) -> Look | None:
    """What was printed from `position` on, as far as it is known; None when the run was deleted."""
    status = Execution.objects.filter(pk=execution_id).values_list("status", flat=True).first()
    if status is None:
        return None
    if status not in UNFINISHED:
        return Look(status, list(kept(execution_id=execution_id, position=position)), ended=True)
    rows = Chunk.objects.filter(watch_id=execution_id, position__gte=position)
    found = [
        Piece(row.position, row.stream, bytes(row.data))
        for row in rows.order_by("position")[:READ_CHUNKS]
    ]
    if position and (not found or found[0].position > position):
        found = _with_rest(execution_id, position, found)
    return Look(status, _joined(found, position), ended=False, full=len(found) >= READ_CHUNKS)


def kept(*, execution_id: int, position: int) -> list[Piece]:
    """The same of a run that has ended."""
    sql = "SELECT stdout, stderr, turns FROM executions_executionoutput WHERE execution_id = %s"
    with connection.cursor() as cursor:
        cursor.execute(sql, [execution_id])
        row = cursor.fetchone()
    if row is None:
        return []
    stdout, stderr, turns = row
    return list(pieces((bytes(stdout), bytes(stderr)), turns or (), position))


def _with_rest(execution_id: int, position: int, found: list[Piece]) -> list[Piece]:
    """Where `position` lies within a piece: the rest of that one comes first."""
    earlier = Chunk.objects.filter(watch_id=execution_id, position__lt=position)
    before = earlier.order_by("-position").first()
    if before is None:
        return found
    piece = Piece(before.position, before.stream, bytes(before.data))
    if piece.end <= position:
        return found
    return [Piece(position, piece.stream, piece.data[position - piece.position :]), *found]


def _joined(found: list[Piece], position: int) -> list[Piece]:
    """As far as nothing is missing."""
    whole = []
    for piece in found:
        if piece.position != position:
            break
        whole.append(piece)
        position = piece.end
    return whole


def forget_ended() -> None:
    """Remove what was published of runs that ended a while ago."""
    sql = """
        SELECT watch.execution_id FROM events_watch watch
        JOIN executions_execution run ON run.id = watch.execution_id
        WHERE run.finished_at < now() - make_interval(secs => %s) LIMIT 200
    """
    with connection.cursor() as cursor:
        cursor.execute(sql, [KEPT_SECS])
        ended = [row[0] for row in cursor.fetchall()]
    if ended:
        Watch.objects.filter(pk__in=ended).delete()
