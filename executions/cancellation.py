"""Cancels runs: one that waits never starts, one that runs is ended by its worker at once."""

from django.db import connection, transaction

from executions import audit, notifications
from executions.actor import Actor
from executions.errors import HasEnded
from executions.lifecycle import withdraw
from executions.models import Execution

_REQUEST = """
    WITH asked AS (
        UPDATE executions_execution
        SET cancel_requested_at = coalesce(cancel_requested_at, now())
        WHERE id = %s AND status IN ('queued', 'pulling', 'running') RETURNING exec_id
    )
    SELECT pg_notify(%s, exec_id) FROM asked
"""
_OVERDUE = """
    SELECT exec_id, cancel_requested_at IS NULL FROM executions_execution
    WHERE status = 'queued' AND (expires_at <= now() OR cancel_requested_at IS NOT NULL)
        AND (%(exec_id)s = '' OR exec_id = %(exec_id)s)
    LIMIT 200
"""


def cancel(*, actor: Actor, execution: Execution) -> None:
    """Have it end without an outcome; may be repeated while it hasn't. Raises HasEnded.

    One that is claimed is `cancelled` a moment later, with what it has printed.
    """
    with transaction.atomic():
        if not (withdraw(exec_id=execution.exec_id) or _request(execution)):
            raise HasEnded("the run has ended already", exec_id=execution.exec_id)
        audit.record(
            actor,
            audit.Verb.RUN_CANCELLED,
            "executions.execution",
            execution.exec_id,
            owner_id=execution.owner_id,
        )


def _request(execution: Execution) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_REQUEST, [execution.pk, notifications.CANCEL_CHANNEL])
        return cursor.fetchone() is not None


def settle_overdue(*, exec_id: str = "") -> None:
    """End what waits and is never to start: its time is over, or it was queued again meanwhile.

    With an `exec_id` that run alone, whose message came to a worker.
    """
    with connection.cursor() as cursor:
        cursor.execute(_OVERDUE, {"exec_id": exec_id})
        overdue = cursor.fetchall()
    for found, expired in overdue:
        withdraw(exec_id=found, error_code="expired" if expired else "")
