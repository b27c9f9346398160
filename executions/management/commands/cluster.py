"""`manage.py cluster`: the django-q2 cluster of this host; `up` and `worker` start it."""

import socket
import uuid
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from executions.cluster.sentinel import BoxerSentinel
from executions.host import prepare_host, sandbox_network


class Command(BaseCommand):
    help = "Run queued executions on this host until SIGTERM."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        version = prepare_host()
        sentinel = BoxerSentinel(
            settings.BOXER_WORKER_HOST_ID or str(uuid.uuid4()), settings.BOXER_HOME / "cluster.sock"
        )
        sentinel.run(
            name=socket.gethostname(),
            workers=settings.BOXER_WORKERS,
            runsc_version=version,
            network_lack=sandbox_network().lack()[:1000],
        )
