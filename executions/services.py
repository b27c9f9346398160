"""The only writer of an execution's status: submit, claim, start, finish, withdraw, reap."""

import logging
from dataclasses import dataclass, field, fields
from functools import cache, partial

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone
from django_q.models import OrmQ
from django_q.signing import SignedPackage
from psycopg.types.json import Jsonb

from executions import notifications
from executions.broker import ListenBroker
from executions.errors import InputNotFound, NetworkUnavailable, NoWorker, QueueFull
from executions.hosts import HOST_SILENCE
from executions.models import (
    CLAIMED,
    Execution,
    ExecutionInput,
    Network,
    Outcome,
    Status,
)
from executions.sandbox.spec import Limits
from filestore import services as filestore
from filestore.errors import FileMissing

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
"""How often a run that never started is tried again."""

RUN_TASK = "executions.tasks.run_execution"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A validated request; `files` are clean paths of the owner's file store."""

    exec_id: str
    image: str
    cmd: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    files: tuple[str, ...]
    network: str
    persist: bool
    limits: Limits


@dataclass(frozen=True, slots=True)
class Ending:
    """What finish() writes."""

    outcome: Outcome
    exit_code: int | None = None
    signal: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    wall_ms: int | None = None
    cpu_ms: int | None = None
    max_memory_bytes: int | None = None
    error: str = ""
    error_code: str = ""
    left_out: list[dict[str, str]] = field(default_factory=list)


def submit(*, owner_id: int, request: RunRequest) -> None:
    """Queue a run: its row, its inputs and its message commit together.

    Raises QueueFull, NoWorker, InputNotFound, NetworkUnavailable.
    """
    if request.network == Network.SANDBOX:
        raise NetworkUnavailable("network 'sandbox' is not available on this installation")
    _check_capacity()
    with transaction.atomic():
        Execution.objects.bulk_create(
            [
                Execution(
                    exec_id=request.exec_id,
                    owner_id=owner_id,
                    image=request.image,
                    cmd=list(request.cmd),
                    env=list(request.env),
                    cwd=request.cwd,
                    files=list(request.files),
                    network=request.network,
                    persist=request.persist,
                    cpu_cores=request.limits.cpu_cores,
                    memory_mb=request.limits.memory_mb,
                    pids_limit=request.limits.pids_limit,
                    wall_clock_secs=request.limits.wall_clock_secs,
                    nofile=request.limits.nofile,
                    message_id=_enqueue(request.exec_id),
                )
            ]
        )
        if request.files:
            _hold_inputs(owner_id, request)


def _check_capacity() -> None:
    """A soft bound: requests that arrive together may exceed the limit by their number."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM (SELECT 1 FROM executions_execution"
            " WHERE status = 'queued' LIMIT %s) AS waiting),"
            " EXISTS (SELECT 1 FROM executions_workerhost"
            " WHERE stopped_at IS NULL AND seen_at > now() - make_interval(secs => %s))",
            [settings.BOXER_QUEUE_LIMIT, HOST_SILENCE.total_seconds()],
        )
        waiting, alive = cursor.fetchone()
    if not alive:
        raise NoWorker("no worker is alive to run it")
    if waiting >= settings.BOXER_QUEUE_LIMIT:
        raise QueueFull(f"{waiting} runs are waiting already, the most this installation queues")


def _enqueue(exec_id: str) -> int:
    """django-q2's message for a run, as async_task() would write it; its id."""
    task = {
        "id": exec_id.removeprefix("boxer-").ljust(32, "0"),
        "name": exec_id,
        "func": RUN_TASK,
        "args": (exec_id,),
        "kwargs": {},
        "started": timezone.now(),
        "ack_failure": True,
    }
    return _broker().enqueue(SignedPackage.dumps(task))


@cache
def _broker() -> ListenBroker:
    return ListenBroker()


def _hold_inputs(owner_id: int, request: RunRequest) -> None:
    """Tie the run to the contents that its paths mean now."""
    try:
        files = filestore.references(owner_id=owner_id, paths=request.files)
    except FileMissing as missing:
        raise InputNotFound(missing.message, fields={"files": list(missing.paths)}) from missing
    execution_id = Execution.objects.values_list("pk", flat=True).get(exec_id=request.exec_id)
    ExecutionInput.objects.bulk_create(
        ExecutionInput(
            execution_id=execution_id,
            path=file.path,
            sha256=file.blob.sha256,
            size=file.blob.size,
            blob=file.blob,
        )
        for file in files
    )


_CLAIM = """
    WITH claimed AS (
        UPDATE executions_execution SET
            status = 'pulling', attempts = attempts + 1, claimed_at = now(),
            queue_ms = greatest(0, extract(epoch FROM now() - created_at) * 1000)::int,
            host_id = %(host_id)s, worker = %(worker)s
        WHERE exec_id = %(exec_id)s AND (
            status = 'queued'
            OR status = 'pulling' AND host_id = %(host_id)s AND worker = %(worker)s
        )
        RETURNING *
    ), taken AS (
        DELETE FROM django_q_ormq USING claimed
        WHERE django_q_ormq.id = claimed.message_id
    )
    SELECT * FROM claimed
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


def start(
    *, execution: Execution, image_digest: str, pull_ms: int, start_ms: int, warm: bool = False
) -> bool:
    """The command is about to be executed: from now on the run is never tried again.

    False when the claim doesn't stand any more. May be repeated.
    """
    return bool(
        Execution.objects.filter(
            pk=execution.pk, status__in=CLAIMED, attempts=execution.attempts
        ).update(
            status=Status.RUNNING,
            started_at=Now(),
            image_digest=image_digest,
            pull_ms=pull_ms,
            start_ms=start_ms,
            warm=warm,
        )
    )


_FINISH = """
    WITH ended AS (
        UPDATE executions_execution SET
            status = 'finished', finished_at = now(), outcome = %(outcome)s,
            exit_code = %(exit_code)s, signal = %(signal)s, wall_ms = %(wall_ms)s,
            cpu_ms = %(cpu_ms)s, max_memory_bytes = %(max_memory_bytes)s,
            error = %(error)s, error_code = %(error_code)s, left_out = %(left_out)s
        WHERE id = %(id)s AND status IN ('pulling', 'running') AND attempts = %(attempts)s
        RETURNING id, exec_id
    ), printed AS (
        INSERT INTO executions_executionoutput (execution_id, stdout, stderr)
        SELECT id, %(stdout)s, %(stderr)s FROM ended
    )
    SELECT pg_notify(%(channel)s, exec_id) FROM ended
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
        _release_inputs(execution)
    return True


def _write_end(execution: Execution, ending: Ending) -> bool:
    values = {
        **{field.name: getattr(ending, field.name) for field in fields(ending)},
        "left_out": Jsonb(ending.left_out),
        "id": execution.pk,
        "attempts": execution.attempts,
        "channel": notifications.CHANNEL,
    }
    with connection.cursor() as cursor:
        cursor.execute(_FINISH, values)
        return cursor.fetchone() is not None


def _release_inputs(execution: Execution) -> None:
    """Unless they are to persist: delete what the run was given, and let go of its contents.

    A path that means something else by now, or was uploaded anew, is left alone.
    """
    if execution.persist:
        return
    held = execution.inputs.exclude(blob=None).order_by("pk").values_list("path", "blob_id")
    for path, blob_id in held:
        filestore.unlink(
            owner_id=execution.owner_id,
            path=path,
            blob_id=blob_id,
            stored_before=execution.created_at,
        )
    _let_go(execution.inputs.all())


def _let_go(inputs: QuerySet[ExecutionInput]) -> None:
    blobs = list(inputs.exclude(blob=None).values_list("blob_id", flat=True).distinct())
    inputs.update(blob=None)
    transaction.on_commit(partial(filestore.discard_blobs, blob_ids=blobs), robust=True)


def withdraw(*, exec_id: str) -> bool:
    """Take back a run that still waits; False when it doesn't wait any more."""
    with transaction.atomic():
        changed = Execution.objects.filter(exec_id=exec_id, status=Status.QUEUED).update(
            status=Status.CANCELLED, finished_at=Now()
        )
        if changed:
            OrmQ.objects.filter(
                pk=Execution.objects.values_list("message_id", flat=True).get(exec_id=exec_id)
            ).delete()
            _let_go(ExecutionInput.objects.filter(execution__exec_id=exec_id))
            _announce(exec_id)
    return bool(changed)


def _announce(exec_id: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [notifications.CHANNEL, exec_id])


# ── Healing ──────────────────────────────────────────────────────────────────────────────────────


def reap_worker(*, host_id: str, worker: str) -> int:
    """End, or queue again, what a dead worker had claimed; how many those were."""
    return _reap(Q(host_id=host_id, worker=worker), "its worker died")


def reap_lost_hosts() -> int:
    """The same for hosts that have stopped or fallen silent."""
    silent = Q(host__seen_at__lt=timezone.now() - 4 * HOST_SILENCE)
    gone = Q(host__isnull=True) | Q(host__stopped_at__isnull=False) | silent
    return _reap(gone, "its worker host was lost")


def _reap(lost: Q, why: str) -> int:
    executions = list(Execution.objects.filter(lost, status__in=CLAIMED).order_by("pk")[:1000])
    for execution in executions:
        if execution.status == Status.PULLING and execution.attempts < MOST_ATTEMPTS:
            queue_again(execution=execution)
        else:
            ending = Ending(
                outcome=Outcome.INFRA_ERROR, error=f"the run was lost: {why}", error_code="lost"
            )
            finish(execution=execution, ending=ending)
    return len(executions)


def queue_again(*, execution: Execution) -> None:
    """Nothing of it has run yet: back to the queue with a message of its own."""
    with transaction.atomic():
        changed = Execution.objects.filter(
            pk=execution.pk, status=Status.PULLING, attempts=execution.attempts
        ).update(status=Status.QUEUED, host=None, worker="")
        if changed:
            Execution.objects.filter(pk=execution.pk).update(message_id=_enqueue(execution.exec_id))
