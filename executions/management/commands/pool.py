"""`manage.py pool`: keeps sandboxes booted ahead on this host; `up` and `worker` start it."""

import os
import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from executions import workers
from executions.cluster.primitives import PipeEvent
from executions.host import pool_socket, prepare_host, sandbox_host
from executions.image_store import image_store
from executions.sandbox import kernel, pool


class Command(BaseCommand):
    help = "Keep sandboxes booted ahead of their runs, until SIGTERM."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        prepare_host()
        kernel.become_subreaper()
        kernel.name_process("boxer-pool")
        stop = PipeEvent()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        owner = workers.register(settings.BOXER_HOME, settings.BOXER_WORKER_HOST_ID)
        bounds = pool.Bounds(
            size=settings.BOXER_POOL_SIZE,
            memory_bytes=settings.BOXER_POOL_MEMORY_MB << 20,
            idle_secs=settings.BOXER_POOL_IDLE_SECS,
        )
        with pool.listen(pool_socket()) as listener:
            pool.Pool(
                sandbox_host(owner.directory),
                image_store(),
                bounds,
                pinned=settings.BOXER_POOL_PINNED,
                listener=listener,
                stop=stop,
            ).serve()
        pool_socket().unlink(missing_ok=True)
        workers.forget(owner)
        self.stderr.write(f"pool {os.getpid()} stopped")
