"""A run from its claim to its end: each change is one conditional statement."""

from dataclasses import dataclass, field, fields

from django.db import connection, transaction
from django.db.models.functions import Now
from django_q.models import OrmQ
from psycopg.types.json import Jsonb

from executions import notifications
from executions.broker import CHANNEL
from executions.inputs import let_go, release_inputs
from executions.messages import enqueue
from executions.models import Execution, ExecutionInput, Outcome, Status


@dataclass(frozen=True, slots=True)
class Ending:
    """What finish() writes."""

    outcome: Outcome | None
    """None for a run that was cancelled."""
    exit_code: int | None = None
    signal: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    turns: tuple[int, ...] = ()
    wall_ms: int | None = None
    cpu_ms: int | None = None
    max_memory_bytes: int | None = None
    net_sent_bytes: int | None = None
    net_received_bytes: int | None = None
    net_refused: int | None = None
    error: str = ""
    error_code: str = ""
    left_out: list[dict[str, str]] = field(default_factory=list)


_CLAIM = """
    WITH claimed AS (
        UPDATE executions_execution SET
            status = 'pulling', attempts = attempts + 1, claimed_at = now(),
            queue_ms = greatest(0, extract(epoch FROM now() - created_at) * 1000)::int,
            host_id = %(host_id)s, worker = %(worker)s
        WHERE exec_id = %(exec_id)s AND (
            status = 'queued' AND cancel_requested_at IS NULL
            AND (expires_at IS NULL OR expires_at > now())
            OR status = 'pulling' AND host_id = %(host_id)s AND worker = %(worker)s
        )
        RETURNING *
    ), taken AS (
        DELETE FROM django_q_ormq USING claimed
        WHERE django_q_ormq.id = claimed.message_id
    )
    SELECT claimed.*,
        (SELECT data FROM executions_executionstdin WHERE execution_id = claimed.id) AS stdin_data,
        EXISTS (SELECT 1 FROM events_watch WHERE execution_id = claimed.id) AS watched
    FROM claimed
"""


def claim(*, exec_id: str, host_id: str, worker: str) -> Execution | None:
    """Make a queued run this worker's; None when it isn't to be had (any more).

    Its message goes in the same statement: from here on the claim stands for it, so a message that
    django-q2 delivers twice runs once. May be repeated by the same worker, which can't know whether
    a claim was committed when the connection broke over it.
    """
    names = {"exec_id": exec_id, "host_id": host_id, "worker": worker}
    claimed = list(Execution.objects.raw(_CLAIM, names))
    return claimed[0] if claimed else None


_START = """
    UPDATE executions_execution SET
        status = 'running', started_at = now(), image_digest = %(image_digest)s,
        pull_ms = %(pull_ms)s, start_ms = %(start_ms)s, warm = %(warm)s, platform = %(platform)s,
        runsc_version = coalesce((
            SELECT runsc_version FROM executions_workerhost host WHERE host.id = host_id
        ), '')
    WHERE id = %(id)s AND status IN ('pulling', 'running') AND attempts = %(attempts)s
"""


def start(
    *,
    execution: Execution,
    image_digest: str,
    pull_ms: int,
    start_ms: int,
    warm: bool = False,
    platform: str = "",
) -> bool:
    """The command is about to be executed: from now on the run is never tried again.

    `platform` is runsc's; its version is the one that the host told when it started. False when the
    claim doesn't stand any more. May be repeated.
    """
    values: dict[str, int | str | bool] = {
        "id": execution.pk,
        "attempts": execution.attempts,
        "image_digest": image_digest,
        "pull_ms": pull_ms,
        "start_ms": start_ms,
        "warm": warm,
        "platform": platform,
    }
    with connection.cursor() as cursor:
        cursor.execute(_START, values)
        return bool(cursor.rowcount)


_FINISH = """
    WITH ended AS (
        UPDATE executions_execution SET
            status = %(status)s, finished_at = now(), outcome = %(outcome)s,
            exit_code = %(exit_code)s, signal = %(signal)s, wall_ms = %(wall_ms)s,
            cpu_ms = %(cpu_ms)s, max_memory_bytes = %(max_memory_bytes)s,
            net_sent_bytes = %(net_sent_bytes)s, net_received_bytes = %(net_received_bytes)s,
            net_refused = %(net_refused)s,
            error = %(error)s, error_code = %(error_code)s, left_out = %(left_out)s
        WHERE id = %(id)s AND status IN ('pulling', 'running') AND attempts = %(attempts)s
        RETURNING id, exec_id, owner_id, worker
    ), spent AS (
        INSERT INTO quotas_dayofcpu (user_id, day, slot, cpu_ms)
        SELECT owner_id, (now() AT TIME ZONE 'UTC')::date, hashtext(worker) & 15, %(cpu_ms)s::int
        FROM ended WHERE %(cpu_ms)s::int > 0
        ON CONFLICT (user_id, day, slot)
            DO UPDATE SET cpu_ms = quotas_dayofcpu.cpu_ms + excluded.cpu_ms
    ), printed AS (
        INSERT INTO executions_executionoutput (execution_id, stdout, stderr, turns)
        SELECT id, %(stdout)s, %(stderr)s, %(turns)s::int[] FROM ended
    )
    SELECT pg_notify(%(channel)s, exec_id),
        -- Another run of theirs may have waited for this one's end.
        CASE WHEN EXISTS (SELECT 1 FROM executions_execution waiting
            WHERE waiting.status = 'queued' AND waiting.owner_id = ended.owner_id)
        THEN pg_notify(%(queue)s, '') END
    FROM ended
"""


def finish(*, execution: Execution, ending: Ending) -> bool:
    """Write the end of a claimed run and wake whoever waits; False when somebody else ended it.

    One statement: it is on the path of every answer.
    """
    if not execution.files:
        return _write_end(execution, ending)
    with transaction.atomic():
        if not _write_end(execution, ending):
            return False
        release_inputs(execution)
    return True


def _write_end(execution: Execution, ending: Ending) -> bool:
    values = {
        **{field.name: getattr(ending, field.name) for field in fields(ending)},
        "status": Status.CANCELLED if ending.outcome is None else Status.FINISHED,
        "outcome": ending.outcome or "",
        "turns": list(ending.turns),
        "left_out": Jsonb(ending.left_out),
        "id": execution.pk,
        "attempts": execution.attempts,
        "channel": notifications.CHANNEL,
        "queue": CHANNEL,
    }
    with connection.cursor() as cursor:
        cursor.execute(_FINISH, values)
        return cursor.fetchone() is not None


def withdraw(*, exec_id: str, error_code: str = "") -> bool:
    """Take back a run that still waits; False when it doesn't wait any more."""
    with transaction.atomic():
        changed = Execution.objects.filter(exec_id=exec_id, status=Status.QUEUED).update(
            status=Status.CANCELLED, finished_at=Now(), error_code=error_code
        )
        if changed:
            OrmQ.objects.filter(
                pk=Execution.objects.values_list("message_id", flat=True).get(exec_id=exec_id)
            ).delete()
            let_go(ExecutionInput.objects.filter(execution__exec_id=exec_id))
            announce(exec_id)
    return bool(changed)


def announce(exec_id: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [notifications.CHANNEL, exec_id])


def queue_again(*, execution: Execution) -> None:
    """Nothing of it has run yet: back to the queue with a message of its own."""
    with transaction.atomic():
        changed = Execution.objects.filter(
            pk=execution.pk, status=Status.PULLING, attempts=execution.attempts
        ).update(status=Status.QUEUED, host=None, worker="")
        if changed:
            Execution.objects.filter(pk=execution.pk).update(message_id=enqueue(execution.exec_id))
