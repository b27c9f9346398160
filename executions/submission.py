"""A run is asked for: its row, its inputs and its message commit together, or nothing does."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Field
from django.utils import timezone

from executions import audit
from executions.actor import Actor
from executions.admission import admit, terms_for
from executions.broker import CHANNEL
from executions.errors import NetworkUnavailable, NoWorker, QueueFull
from executions.hosts import HOST_SILENCE, sandbox_network_lack
from executions.image_policy.decision import decide
from executions.inputs import hold_again, hold_inputs
from executions.messages import broker_key, package_of
from executions.models import Execution, ExecutionStdin, Network
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
    stdin: bytes = b""
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    callback_url: str = ""
    outputs: tuple[str, ...] | None = None
    """Patterns of paths below /output to keep; with None `persist` decides for all of them."""
    expires_in: int | None = None
    """Seconds."""
    rerun_of: int | None = None
    """Primary key of the execution that is repeated."""


def submit(*, actor: Actor, request: RunRequest) -> None:
    """Queue a run: its row, its inputs and its message commit together.

    Raises QueueFull, NoWorker, InputNotFound, NetworkUnavailable, ImageRefused, and
    what quotas say: HostNetworkForbidden, QuotaForbids, QuotaExceeded, OverCeiling.
    """
    if request.network == Network.SANDBOX:
        _check_network()
    terms = terms_for(
        actor=actor,
        image=request.image,
        network=request.network,
        limits=request.limits,
        priority=request.priority,
    )
    decided = decide(actor=actor, image=request.image)
    execution = Execution(
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
        labels=dict(request.labels),
        priority=request.priority,
        callback_url=request.callback_url,
        outputs=None if request.outputs is None else list(request.outputs),
        expires_at=_expiry(request),
        rerun_of_id=request.rerun_of,
    )
    entry = audit.entry_values(
        actor,
        audit.Verb.RUN_SUBMITTED,
        "executions.execution",
        request.exec_id,
        details={"image": request.image, "network": request.network},
    )
    alone = not (request.files or request.stdin) and execution.env == list(request.env)
    # What is one statement commits by itself.
    with contextlib.nullcontext() if alone and terms is None else transaction.atomic():
        if terms is not None:
            admit(terms, user_id=actor.user_id)
        execution.pk = _queue(execution, entry)
        sealed.seal(execution_id=execution.pk, exec_id=request.exec_id, env=request.env)
        if request.stdin:
            ExecutionStdin.objects.create(execution_id=execution.pk, data=request.stdin)
        if request.files and request.rerun_of is not None:
            hold_again(earlier_id=request.rerun_of, execution_id=execution.pk)
        elif request.files:
            hold_inputs(owner_id=actor.user_id, exec_id=request.exec_id, paths=request.files)


def _expiry(request: RunRequest) -> datetime | None:
    if request.expires_in is None:
        return None
    return timezone.now() + timedelta(seconds=request.expires_in)


def _check_network() -> None:
    """Asked for this mode alone: one statement more."""
    if lack := sandbox_network_lack():
        raise NetworkUnavailable(f"network 'sandbox' is not available on this installation: {lack}")


def _queue(execution: Execution, entry: Sequence[Any]) -> int:
    """Its row, its message and its entry in the audit log, in one statement; the row's id.

    The bound is a soft one: requests that arrive together may exceed it by their number. Raises
    NoWorker, QueueFull, and then there is nothing of it.
    """
    limit: int = settings.BOXER_QUEUE_LIMIT
    values = [
        field.get_db_prep_save(field.pre_save(execution, add=True), connection)
        for field in _columns()
    ]
    message = (broker_key(), package_of(execution.exec_id))
    with connection.cursor() as cursor:
        cursor.execute(
            _statement(),
            [limit, HOST_SILENCE.total_seconds(), *message, limit, *values, *entry],
        )
        waiting, alive, pk, _ = cursor.fetchone()
    if not alive:
        raise NoWorker("no worker is alive to run it")
    if pk is None:
        raise QueueFull(f"{waiting} runs are waiting already, the most this installation queues")
    return int(pk)


@cache
def _columns() -> tuple["Field[Any, Any]", ...]:
    """All that the model gives a value, whichever fields it has."""
    unset = ("id", "message_id")
    fields = Execution._meta.concrete_fields  # noqa: SLF001 (Django documents _meta)
    return tuple(field for field in fields if field.attname not in unset)


@cache
def _statement() -> str:
    names = ", ".join(f'"{field.column}"' for field in _columns())
    # What is selected has no type of the column that it is for.
    values = ", ".join(f"%s::{field.db_type(connection)}" for field in _columns())
    return f"""
        WITH room AS (
            SELECT
                (SELECT count(*) FROM (SELECT 1 FROM executions_execution
                    WHERE status = 'queued' LIMIT %s) AS queued) AS waiting,
                EXISTS (SELECT 1 FROM executions_workerhost WHERE stopped_at IS NULL
                    AND seen_at > now() - make_interval(secs => %s)) AS alive
        ), message AS (
            INSERT INTO django_q_ormq (key, payload, lock)
            SELECT %s, %s, now() FROM room WHERE alive AND waiting < %s RETURNING id
        ), run AS (
            INSERT INTO executions_execution ({names}, message_id)
            SELECT {values}, id FROM message RETURNING id
        ), entry AS (
            INSERT INTO audit_entry ({audit.COLUMNS}) SELECT {audit.TYPED_VALUES} FROM message
        )
        SELECT waiting, alive, run.id,
            CASE WHEN run.id IS NOT NULL THEN pg_notify('{CHANNEL}', '') END
        FROM room LEFT JOIN run ON true
    """  # noqa: S608 (names of our own tables and columns)
