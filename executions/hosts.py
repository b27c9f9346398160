"""Worker hosts: they start, say that they live, stop, and are forgotten."""

from datetime import timedelta
from typing import Any

from django.db.models.functions import Now
from django.utils import timezone

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


def alive(*, host_id: str) -> None:
    WorkerHost.objects.filter(pk=host_id).update(seen_at=Now())


def stopped(*, host_id: str) -> None:
    WorkerHost.objects.filter(pk=host_id).update(stopped_at=Now())


def forget_old() -> None:
    """Hosts that stopped or fell silent a week ago, and that no execution names."""
    WorkerHost.objects.filter(
        seen_at__lt=timezone.now() - timedelta(days=7), execution__isnull=True
    ).delete()
