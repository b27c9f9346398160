"""A run is asked for: its row, its inputs and its message commit together, or nothing does."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from executions import audit
from executions.actor import Actor
from executions.errors import NetworkUnavailable, NoWorker, QueueFull
from executions.hosts import HOST_SILENCE
from executions.image_policy.decision import decide
from executions.inputs import hold_inputs
from executions.messages import enqueue
from executions.models import Execution, Network
from executions.sandbox.spec import Limits
from executions.sealed import services as sealed


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


def submit(*, actor: Actor, request: RunRequest) -> None:
    """Queue a run: its row, its inputs and its message commit together.

    Raises QueueFull, NoWorker, InputNotFound, NetworkUnavailable, ImageRefused.
    """
    if request.network == Network.SANDBOX:
        raise NetworkUnavailable("network 'sandbox' is not available on this installation")
    _check_capacity()
    decided = decide(actor=actor, image=request.image)
    with transaction.atomic():
        [execution] = Execution.objects.bulk_create(
            [
                Execution(
                    exec_id=request.exec_id,
                    owner_id=actor.user_id,
                    image=decided.image,
                    image_terms=decided.terms,
                    cmd=list(request.cmd),
                    env=sealed.masked(request.env),
                    cwd=request.cwd,
                    files=list(request.files),
                    network=request.network,
                    persist=request.persist,
                    cpu_cores=request.limits.cpu_cores,
                    memory_mb=request.limits.memory_mb,
                    pids_limit=request.limits.pids_limit,
                    wall_clock_secs=request.limits.wall_clock_secs,
                    nofile=request.limits.nofile,
                    message_id=enqueue(request.exec_id, entry=_entry(actor, request)),
                )
            ]
        )
        sealed.seal(execution_id=execution.pk, exec_id=request.exec_id, env=request.env)
        if request.files:
            hold_inputs(owner_id=actor.user_id, exec_id=request.exec_id, paths=request.files)


def _entry(actor: Actor, request: RunRequest) -> list[Any]:
    return audit.entry_values(
        actor,
        audit.Verb.RUN_SUBMITTED,
        "executions.execution",
        request.exec_id,
        details={"image": request.image, "network": request.network},
    )


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
