"""The worker's side: writes down what a watched run prints, and tells those who watch."""

import json
from collections.abc import Sequence
from typing import Any

import psycopg

from executions.events.pieces import Piece
from executions.notifications import EVENTS_CHANNEL

_PUBLISH = """
    WITH published AS (
        INSERT INTO events_chunk (watch_id, position, stream, data)
        SELECT %s, * FROM unnest(%s::bigint[], %s::smallint[], %s::bytea[])
        ON CONFLICT DO NOTHING
    )
    SELECT pg_notify(%s, %s)
"""


def publish(
    connection: psycopg.Connection[Any], execution_id: int, exec_id: str, found: Sequence[Piece]
) -> None:
    """Raises psycopg.Error, and then may be repeated."""
    values = [
        execution_id,
        [piece.position for piece in found],
        [piece.stream for piece in found],
        [piece.data for piece in found],
        EVENTS_CHANNEL,
        exec_id,
    ]
    connection.execute(_PUBLISH, values)


def tell(
    connection: psycopg.Connection[Any], exec_id: str, usage: dict[str, int] | None = None
) -> None:
    """That there is reason to look, or what the run uses now."""
    payload = exec_id if usage is None else f"{exec_id} {json.dumps(usage)}"
    connection.execute("SELECT pg_notify(%s, %s)", [EVENTS_CHANNEL, payload])


def is_watched(connection: psycopg.Connection[Any], execution_id: int) -> bool:
    found = connection.execute("SELECT 1 FROM events_watch WHERE execution_id = %s", [execution_id])
    return found.fetchone() is not None
