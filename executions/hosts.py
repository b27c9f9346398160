"""Worker hosts: they start, say that they live, stop, and are forgotten."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from executions import audit
from executions.actor import Actor
from executions.models import WorkerHost

HOST_SILENCE = timedelta(seconds=15)
"""A host whose cluster hasn't been seen for so long (it says so every 5 s) counts as dead."""


def started(
    *, host_id: str, name: str, workers: int, runsc_version: str, network_lack: str = ""
) -> None:
    values: dict[str, Any] = {
        "name": name,
        "workers": workers,
        "runsc_version": runsc_version,
        "network_lack": network_lack,
        "seen_at": Now(),
        "stopped_at": None,
    }
    WorkerHost.objects.update_or_create(pk=host_id, defaults=values)


def sandbox_network_lack() -> str:
    """What keeps a living host from giving a run a network of its own: any may be to run it."""
    lacks = WorkerHost.objects.filter(
        stopped_at=None, seen_at__gt=timezone.now() - HOST_SILENCE
    ).values_list("network_lack", flat=True)
    return next(filter(None, lacks), "")


_ALIVE = "UPDATE executions_workerhost SET seen_at = now() WHERE id = %s RETURNING draining"


def alive(*, host_id: str) -> bool:
    """Says that it lives; whether it may take what waits."""
    with connection.cursor() as cursor:
        cursor.execute(_ALIVE, [host_id])
        row = cursor.fetchone()
    return row is None or not row[0]


@transaction.atomic
def drain(*, actor: Actor, host_id: UUID | str, draining: bool) -> bool:
    """Let it take no new run, or some again: it hears of it within five seconds.

    False when it has stopped, or does so already. Of this start of its workers alone: one that
    starts anew takes what there is.
    """
    running = WorkerHost.objects.filter(pk=host_id, stopped_at=None)
    if not running.filter(draining=not draining).update(draining=draining):
        return False
    verb = audit.Verb.HOST_DRAINED if draining else audit.Verb.HOST_RESUMED
    audit.record(actor, verb, "executions.workerhost", host_id)
    return True


def stopped(*, host_id: str) -> None:
    WorkerHost.objects.filter(pk=host_id).update(stopped_at=Now())


def forget_old() -> None:
    """Hosts that stopped or fell silent a week ago, and that no execution names."""
    WorkerHost.objects.filter(
        seen_at__lt=timezone.now() - timedelta(days=7), execution__isnull=True
    ).delete()
