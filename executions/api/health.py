"""GET /healthz says that the process serves; GET /readyz says whether it could run something."""

import logging
from collections.abc import Callable, Mapping

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http.response import HttpResponseBase, JsonResponse
from django_q.models import OrmQ
from psycopg_pool import PoolTimeout
from rest_framework.permissions import AllowAny
from rest_framework.request import Request

from executions.api import schema
from executions.api.asynchronous import AsyncViewSet, in_thread
from executions.errors import ServiceBusy
from executions.hosts import HOST_SILENCE
from executions.models import WorkerHost

logger = logging.getLogger(__name__)

OK = "ok"


class NotReady(ServiceBusy):
    code = "not_ready"

    def __init__(self, checks: Mapping[str, str]) -> None:
        ill = [name for name, found in checks.items() if found != OK]
        super().__init__(f"not ready: {', '.join(ill)}")
        self.details = {"checks": dict(checks)}


class SystemViewSet(AsyncViewSet):
    """How the service is; anybody may ask."""

    authentication_classes = []
    permission_classes = [AllowAny]

    @schema.health
    async def health(self, request: Request) -> HttpResponseBase:
        """No thread and no database: it answers however much is waited for."""
        self.initial(request)
        return JsonResponse({"ok": True})

    @schema.readiness
    async def readiness(self, request: Request) -> HttpResponseBase:
        self.initial(request)
        checks = await in_thread(all_checks)
        if set(checks.values()) != {OK}:
            raise NotReady(checks)
        return JsonResponse({"ok": True, "checks": checks})


def all_checks() -> Mapping[str, str]:
    """`ok`, or what is the matter, for each part. Without a database the others aren't asked."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return {"database": OK} | {name: check() for name, check in CHECKS.items()}
    except (DatabaseError, InterfaceError, PoolTimeout) as error:
        logger.warning("the database doesn't answer: %s", error)
    unknown = dict.fromkeys(CHECKS, "unknown without the database")
    return {"database": "does not answer"} | unknown


def _queue() -> str:
    limit = settings.BOXER_QUEUE_LIMIT
    waiting = OrmQ.objects.all()[:limit].count()
    return OK if waiting < limit else f"full: {waiting} messages wait"


def _cluster() -> str:
    return OK if live_hosts().exists() else "no worker host is alive"


def _runsc() -> str:
    found = live_hosts().exclude(runsc_version="").exists()
    return OK if found else "no live worker host has found it"


def live_hosts() -> QuerySet[WorkerHost]:
    return WorkerHost.objects.filter(stopped_at__isnull=True, seen_at__gt=Now() - HOST_SILENCE)


CHECKS: Mapping[str, Callable[[], str]] = {"queue": _queue, "cluster": _cluster, "runsc": _runsc}
