"""The worker's end of the cluster: takes messages, and is ended or interrupted in good order."""

import gc
import logging
import os
import signal
from types import FrameType
from typing import Any

from django_q.conf import Conf
from django_q.signing import BadSignature, SignedPackage
from django_q.worker import worker as django_q_worker

from executions import runner
from executions.broker import ListenBroker
from executions.cluster.primitives import STOP, Mailbox, PipeEvent, Rendezvous, Timer
from executions.messages import CLAIMED_TASKS
from executions.sandbox import kernel

logger = logging.getLogger(__name__)


class TaskSource:
    """What django-q2's worker loop reads its tasks from."""

    def __init__(self, tasks: Rendezvous, broker: ListenBroker, interrupted: PipeEvent) -> None:
        self._tasks = tasks
        self._broker = broker
        self._interrupted = interrupted

    def get(self) -> Any:
        """The next task, or STOP."""
        while (message := self._tasks.message(self._interrupted)) is not None:
            message_id, _, payload = message.decode().partition("\n")
            try:
                task = SignedPackage.loads(payload)
            except (TypeError, BadSignature):
                logger.exception("a message of the queue isn't ours")
                self._broker.fail(int(message_id))
                continue
            task["cluster"] = Conf.CLUSTER_NAME
            if task["func"] not in CLAIMED_TASKS:
                # A claim takes the message away; every other task is acknowledged at its end and
                # must stay hidden until then.
                task["ack_id"] = int(message_id)
                self._broker.keep(int(message_id))
            return task
        return STOP


def run(
    tasks: Rendezvous, results: Mailbox, timer: Timer, timeout: int, parent: int, host_id: str
) -> None:
    """A worker process, from its fork to its end."""
    kernel.name_process("boxer-worker")
    kernel.die_with_parent(parent)
    kernel.become_subreaper()
    executor = runner.start(host_id=host_id)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        executor.interrupt()

    signal.signal(signal.SIGTERM, interrupt)
    source = TaskSource(tasks, ListenBroker(), executor.interrupted)
    gc.freeze()  # what is here stays: no collection in the middle of a run need look at it
    django_q_worker(source, results, timer, timeout)
    executor.close()
    logger.debug("worker %d ends", os.getpid())
