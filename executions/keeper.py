"""Heals what was killed: ends or requeues the runs of dead workers and removes what they left."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from django.db import Error, connections

from executions import hosts, retention, services, workers
from executions.audit import keeping
from executions.batches import queueing
from executions.callbacks import services as callbacks
from executions.cluster.primitives import PipeEvent
from executions.events import services as events
from executions.host import sandbox_host, sandbox_network
from executions.idempotency import services as idempotency
from executions.image_policy import prefetches
from executions.image_policy.inventory import Inventory
from executions.image_store import image_store
from executions.sandbox.network import upkeep
from executions.sandbox.sandbox import clear
from executions.sandbox.spec import SandboxError
from filestore import services as filestore

logger = logging.getLogger(__name__)

DEAD_WORKERS_SECS = 1.0
LOST_HOSTS_SECS = 5.0
OVERDUE_SECS = 1.0
AUDIT_SECS = 1.0
CALLBACK_SECS = 1.0
INVENTORY_SECS = 2.0
BATCHES_SECS = 0.5
RETENTION_SECS = 60.0
GARBAGE_SECS = 60.0


class Keeper:
    """One per home. Each duty has its own rhythm, and one that fails doesn't keep the others."""

    def __init__(self, home: Path, stop: PipeEvent) -> None:
        self._home = home
        self._stop = stop
        self._watch = upkeep.Watch(sandbox_network())
        self._duties: list[tuple[float, Callable[[], object]]] = [
            (DEAD_WORKERS_SECS, self.bury_workers),
            (LOST_HOSTS_SECS, services.reap_lost_hosts),
            (LOST_HOSTS_SECS, prefetches.reap_lost_hosts),
            (GARBAGE_SECS, prefetches.forget_old),
            (OVERDUE_SECS, services.settle_overdue),
            (AUDIT_SECS, self.chain_audit_log),
            (CALLBACK_SECS, callbacks.enqueue_due),
            (GARBAGE_SECS, callbacks.forget_old),
            (INVENTORY_SECS, Inventory().tell),
            (GARBAGE_SECS, keeping.settle_failures),
            (GARBAGE_SECS, filestore.collect_garbage),
            (GARBAGE_SECS, hosts.forget_old),
            (GARBAGE_SECS, events.forget_ended),
            (GARBAGE_SECS, idempotency.forget_old),
            (BATCHES_SECS, queueing.advance),
            (RETENTION_SECS, retention.retire),
            (GARBAGE_SECS, image_store().clear_leftovers),
        ]

    def run(self) -> None:
        due = [0.0] * len(self._duties)
        self._watch.start()
        try:
            while not self._stop.is_set():
                for number, (rhythm, duty) in enumerate(self._duties):
                    if time.monotonic() >= due[number]:
                        self._do(duty)
                        due[number] = time.monotonic() + rhythm
                self._stop.wait(max(0.0, min(due) - time.monotonic()))
        finally:
            self._watch.stop()

    def _do(self, duty: Callable[[], object]) -> None:
        name = getattr(duty, "__name__", str(duty))
        try:
            duty()
        except Error as error:
            logger.warning("%s: the database is away: %s", name, error)
            connections.close_all()
        except Exception:
            logger.exception("%s failed; it is tried again", name)

    def chain_audit_log(self) -> None:
        keeping.chain_and_note(self._home)

    def bury_workers(self) -> None:
        """Sandboxes first: an execution that is said to be lost doesn't run any more."""
        with workers.dead_workers(self._home) as dead:
            for worker in dead:
                try:
                    clear(sandbox_host(worker.directory))
                except (SandboxError, OSError):
                    logger.exception("what worker %s left can't be removed yet", worker.name)
                    continue
                lost = services.reap_worker(host_id=worker.host_id, worker=worker.name)
                lost += prefetches.reap_worker(host_id=worker.host_id, worker=worker.name)
                workers.forget(worker)
                logger.warning("worker %s had died; runs it had: %d", worker.name, lost)


def remove_traces(home: Path) -> None:
    """After every worker has ended: our network and cgroups, which else outlive us."""
    try:
        upkeep.remove(sandbox_network())
    except (SandboxError, OSError):
        logger.exception("the sandboxes' network can't be removed")
    hierarchy = sandbox_host(home / "workers").hierarchy
    if hierarchy is not None:
        hierarchy.remove_group()
