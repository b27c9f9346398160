"""The hosts of the workers in the admin: whether they live, and what they run."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count
from django.http import HttpRequest
from django.utils import timezone

from executions.administration import steps
from executions.administration.confirmed import action, permitted
from executions.hosts import HOST_SILENCE
from executions.models import CLAIMED, Execution, WorkerHost
from filestore.admin_base import ReadOnlyAdmin


@admin.register(WorkerHost)
class WorkerHostAdmin(permitted(*steps.OF_HOSTS), ReadOnlyAdmin):  # type: ignore[misc]
    list_display = [
        "name", "state", "seen_at", "started_at", "stopped_at", "workers", "runs_now",
        "runsc_version", "network_lack",
    ]  # fmt: skip
    ordering = ["-seen_at"]
    search_fields = ["name__startswith"]
    search_help_text = "The beginning of a host's name."
    actions = [action(step) for step in steps.OF_HOSTS]
    fields = [
        "id", "name", "state", "seen_at", "started_at", "stopped_at", "workers", "runs_now",
        "runsc_version", "network_lack",
    ]  # fmt: skip

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    @admin.display(description="state")
    def state(self, host: WorkerHost) -> str:
        return state_of(host)

    @admin.display(description="runs now")
    def runs_now(self, host: Any) -> int:
        if not hasattr(host, "runs_now"):
            host.runs_now = runs_by_host().get(host.pk, 0)
        return int(host.runs_now)

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """One look for all hosts, at the few runs that are claimed."""
        changes = super().get_changelist_instance(request)
        running = runs_by_host()
        for host in changes.result_list:
            host.runs_now = running.get(host.pk, 0)
        return changes


def state_of(host: WorkerHost) -> str:
    if host.stopped_at is not None:
        return "stopped"
    if host.seen_at <= timezone.now() - HOST_SILENCE:
        return "silent"
    return "draining" if host.draining else "alive"


def runs_by_host() -> dict[Any, int]:
    claimed = Execution.objects.filter(status__in=CLAIMED).order_by()
    return dict(claimed.values_list("host_id").annotate(Count("pk")))
