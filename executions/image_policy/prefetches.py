"""Prefetches: asked for, claimed, under way, ended. Each change is one conditional statement."""

import uuid
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from django_q.models import OrmQ

from executions import audit
from executions.actor import Actor
from executions.errors import InvalidReference, QueueFull
from executions.hosts import HOST_SILENCE
from executions.image_policy.decision import decide
from executions.image_policy.models import BUSY, UNFINISHED, Prefetch
from executions.messages import PREFETCH_TASK, enqueue_task
from executions.models import WorkerHost
from executions.sandbox.references import BadReference, parse

MOST_WAITING = 100
"""Prefetches that may wait or be under way: each keeps a worker busy."""

State = Prefetch.State


def request(*, actor: Actor, image: str) -> Prefetch:
    """Have a worker bring an image in, as far as the rules let `actor` have it.

    Raises InvalidReference, ImageRefused, QueueFull.
    """
    try:
        reference = str(parse(image))
    except BadReference as error:
        raise InvalidReference(f"image: {error}", fields={"image": [str(error)]}) from None
    decided = decide(actor=actor, image=reference)
    with transaction.atomic():
        _make_room()
        prefetch = Prefetch(
            image=image,
            reference=decided.image,
            terms=decided.terms,
            requested_by=actor.username,
        )
        prefetch.message_id = _enqueue(prefetch.pk)
        prefetch.save(force_insert=True)
        audit.record(
            actor,
            audit.Verb.IMAGE_PREFETCHED,
            "image_policy.prefetch",
            prefetch.pk,
            details={"image": decided.image},
        )
    return prefetch


def _make_room() -> None:
    waiting = Prefetch.objects.filter(state__in=UNFINISHED).count()
    if waiting >= MOST_WAITING:
        raise QueueFull(f"{waiting} prefetches are waiting already")


def _enqueue(prefetch_id: uuid.UUID) -> int:
    name = str(prefetch_id)
    return enqueue_task(uuid.uuid4().hex, name, PREFETCH_TASK, name)


def claim(*, prefetch_id: str, host_id: str, worker: str, host: str) -> Prefetch | None:
    """Make it this worker's and take its message away; None when it isn't to be had (any more)."""
    with transaction.atomic():
        changed = Prefetch.objects.filter(
            Q(state=State.QUEUED) | Q(state__in=BUSY, worker_host=host_id, worker=worker),
            pk=prefetch_id,
        ).update(
            state=State.RESOLVING,
            worker_host=host_id,
            worker=worker,
            host=host,
            started_at=Now(),
        )
        if not changed:
            return None
        prefetch = Prefetch.objects.get(pk=prefetch_id)
        OrmQ.objects.filter(pk=prefetch.message_id).delete()
    return prefetch


def progress(*, prefetch: Prefetch, **values: Any) -> bool:
    """False when it isn't under way any more: it was cancelled, or given up for lost."""
    return bool(_mine(prefetch).update(**values))


def done(*, prefetch: Prefetch, digest: str) -> bool:
    return bool(_mine(prefetch).update(state=State.DONE, digest=digest, finished_at=Now()))


def failed(*, prefetch: Prefetch, error: str, code: str) -> bool:
    return bool(
        _mine(prefetch).update(state=State.FAILED, error=error, error_code=code, finished_at=Now())
    )


def queue_again(*, prefetch: Prefetch) -> None:
    """Its worker is to end: another one starts over."""
    with transaction.atomic():
        changed = _mine(prefetch).update(
            state=State.QUEUED, worker_host=None, worker="", host="", started_at=None
        )
        if changed:
            Prefetch.objects.filter(pk=prefetch.pk).update(message_id=_enqueue(prefetch.pk))


def cancel(*, actor: Actor, prefetch_id: uuid.UUID) -> bool:
    """It ends at once, and its worker stops when it looks next; False when it had ended."""
    with transaction.atomic():
        changed = Prefetch.objects.filter(pk=prefetch_id, state__in=UNFINISHED).update(
            state=State.CANCELLED, finished_at=Now()
        )
        if changed:
            prefetch = Prefetch.objects.get(pk=prefetch_id)
            OrmQ.objects.filter(pk=prefetch.message_id).delete()
            audit.record(
                actor,
                audit.Verb.IMAGE_PREFETCH_CANCELLED,
                "image_policy.prefetch",
                prefetch.pk,
                details={"image": prefetch.reference},
            )
    return bool(changed)


def reap_worker(*, host_id: str, worker: str) -> int:
    """What a dead worker was at has failed; how many those were."""
    return _lost(Q(worker_host=host_id, worker=worker), "its worker died")


def reap_lost_hosts() -> int:
    """The same for hosts that have stopped or fallen silent."""
    alive = WorkerHost.objects.filter(
        stopped_at=None, seen_at__gt=timezone.now() - 4 * HOST_SILENCE
    )
    return _lost(~Q(worker_host__in=alive.values("pk")), "its worker host was lost")


def _lost(which: Q, why: str) -> int:
    return Prefetch.objects.filter(which, state__in=BUSY).update(
        state=State.FAILED,
        error=f"the prefetch was lost: {why}",
        error_code="lost",
        finished_at=Now(),
    )


def _mine(prefetch: Prefetch) -> Any:
    return Prefetch.objects.filter(
        pk=prefetch.pk, state__in=BUSY, worker_host=prefetch.worker_host, worker=prefetch.worker
    )


def forget_old() -> None:
    """Those that ended more than a month ago."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM image_policy_prefetch WHERE finished_at < now() - interval '30 days'"
        )
