"""/admin/overview/: how the service is and what it does, for operators."""

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from executions.administration import figures
from executions.administration.hosts import runs_by_host, state_of
from executions.api.health import all_checks
from executions.doctor.findings import State
from executions.doctor.models import Examination
from executions.models import WorkerHost

HOSTS = 20
EXAMINATIONS = 5


def overview(request: HttpRequest) -> HttpResponse:
    if not request.user.has_perm("executions.view_workerhost"):
        raise PermissionDenied
    now = timezone.now()
    running = runs_by_host()
    hosts = [
        {"host": host, "state": state_of(host), "runs": running.get(host.pk, 0)}
        for host in WorkerHost.objects.order_by("-seen_at")[:HOSTS]
    ]
    context = {
        **admin.site.each_context(request),
        "title": "Overview",
        "checks": all_checks().items(),
        "waiting": figures.waiting(),
        "ended": figures.ended(now),
        "latest": figures.latest(),
        "last_runs": figures.LAST_RUNS,
        "hosts": hosts,
        "examinations": _examinations() if _may_see_examinations(request) else None,
    }
    return TemplateResponse(request, "administration/overview.html", context)


def _may_see_examinations(request: HttpRequest) -> bool:
    return request.user.has_perm("doctor.view_examination")


def _examinations() -> list[Examination]:
    broken = Count("findings", filter=Q(findings__state=State.BROKEN))
    found = Examination.objects.filter(finished_at__isnull=False)
    return list(found.annotate(broken=broken, tried=Count("findings"))[:EXAMINATIONS])
