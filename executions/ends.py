"""How a run ended, read in one look: it is on the path of every answer of POST /run."""

from dataclasses import dataclass, fields

from django.db import connection

from executions.errors import InfraError
from executions.models import UNFINISHED


@dataclass(frozen=True, slots=True)
class Ended:
    """What is told of an execution that has ended; None where nothing was measured."""

    exec_id: str
    status: str
    outcome: str
    exit_code: int | None
    signal: int | None
    error: str
    error_code: str
    image_digest: str
    wall_clock_secs: int
    queue_ms: int | None
    pull_ms: int | None
    start_ms: int | None
    wall_ms: int | None
    cpu_ms: int | None
    max_memory_bytes: int | None
    stdout: bytes
    stderr: bytes


_COLUMNS = ", ".join(
    f"coalesce(printed.{field.name}, '')"
    if field.name in ("stdout", "stderr")
    else f"run.{field.name}"
    for field in fields(Ended)
)
_LOOK = f"""
    SELECT {_COLUMNS} FROM executions_execution run
    LEFT JOIN executions_executionoutput printed ON printed.execution_id = run.id
    WHERE run.exec_id = %s AND run.owner_id = %s
"""  # noqa: S608 (the columns are names of our own)


def end_of(*, exec_id: str, owner_id: int) -> Ended | None:
    """None while it hasn't ended. Raises InfraError when there is no such execution (any more)."""
    with connection.cursor() as cursor:
        cursor.execute(_LOOK, [exec_id, owner_id])
        row = cursor.fetchone()
    if row is None:
        raise InfraError("the execution was removed", exec_id=exec_id)
    ended = Ended(*row)
    return None if ended.status in UNFINISHED else ended
