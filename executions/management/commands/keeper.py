"""`manage.py keeper`: heals this host after crashes; `up` and `worker` start it."""

import os
import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from executions.cluster.primitives import PipeEvent
from executions.keeper import Keeper, remove_traces


class Command(BaseCommand):
    help = "Clear up after workers that died, until SIGTERM."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        stop = PipeEvent()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        keeper = Keeper(settings.BOXER_HOME, stop)
        keeper.run()
        # Stopped after the cluster: what a worker couldn't remove in time is removed now.
        keeper.bury_workers()
        remove_traces(settings.BOXER_HOME)
        self.stderr.write(f"keeper {os.getpid()} stopped")
