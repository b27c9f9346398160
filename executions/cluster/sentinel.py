"""django-q2's sentinel over parts that may be killed: it starts them, guards them, stops them."""

import logging
import os
import signal
import time
import uuid
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from django.db import Error, connections
from django_q.cluster import Sentinel, get_mp_context
from django_q.conf import Conf
from django_q.monitor import monitor

from executions import hosts
from executions.broker import ListenBroker
from executions.cluster import worker
from executions.cluster.primitives import STOP, Mailbox, PipeEvent, Rendezvous, Timer
from executions.cluster.pusher import Pusher
from executions.sandbox import kernel

logger = logging.getLogger(__name__)

STOP_SECS = 3.0
"""How long the workers have to end their sandboxes when the cluster stops."""


class BoxerSentinel(Sentinel):  # type: ignore[misc]
    """Runs in the process that makes it, until SIGTERM or SIGINT, in run()."""

    def __init__(self, host_id: str, socket_path: Path) -> None:
        super().__init__(PipeEvent(), PipeEvent(), uuid.uuid4(), ListenBroker(), start=False)
        self._host_id = host_id
        self._host: dict[str, Any] = {}
        self.event_out = PipeEvent()
        self.task_queue = Rendezvous(socket_path, self.event_out, backlog=2 * Conf.WORKERS)
        self.result_queue = Mailbox()

    def run(self, **host: Any) -> None:
        """Guard the cluster of a worker host until a signal says stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop_on_signal)
        kernel.name_process("boxer-cluster")
        self._host = host
        self.start()

    def guard(self) -> None:
        """The parts run: from here on the host takes work."""
        while not self.stop_event.is_set():
            try:
                hosts.started(host_id=self._host_id, **self._host)
                break
            except Error as error:
                logger.warning("the database doesn't hear that this host starts: %s", error)
                connections.close_all()
                self.stop_event.wait(0.5)
        super().guard()

    def _stop_on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self.stop_event.set()

    def _fork(self, target: Callable[..., None], *args: Any) -> BaseProcess:
        # A connection must not be shared with a child.
        connections.close_all()
        process: BaseProcess = get_mp_context().Process(target=target, args=args)
        process.daemon = True
        process.start()
        return process

    def spawn_worker(self) -> None:
        timer = Timer()
        process: Any = self._fork(
            worker.run,
            self.task_queue,
            self.result_queue,
            timer,
            self.timeout,
            os.getpid(),
            self._host_id,
        )
        process.timer = timer
        self.pool.append(process)

    def spawn_pusher(self) -> BaseProcess:
        pusher = Pusher(self.task_queue, self.event_out, self.broker, self._host_id)
        return self._fork(_as_part, "boxer-pusher", os.getpid(), pusher.run)

    def spawn_monitor(self) -> BaseProcess:
        return self._fork(
            _as_part, "boxer-monitor", os.getpid(), monitor, self.result_queue, self.broker
        )

    def stop(self) -> None:
        """Interrupt the workers, which end their sandboxes and say so, then end the rest."""
        self.event_out.set()
        try:
            hosts.stopped(host_id=self._host_id)
            self.broker.wake()  # the pusher, which waits for messages
        except Error as error:
            logger.warning("the database doesn't hear that this host stops: %s", error)
        for process in self.pool:
            process.terminate()
        _join([*self.pool, self.pusher], time.monotonic() + STOP_SECS)
        self.result_queue.put(STOP)
        _join([self.monitor], time.monotonic() + 1.0)
        self.task_queue.close()


def _join(processes: list[BaseProcess], deadline: float) -> None:
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            logger.error("%s doesn't end by itself and is killed", process.name)
            process.kill()
            process.join()


def _as_part(name: str, parent: int, target: Callable[..., None], *args: Any) -> None:
    """A part of the cluster other than a worker: it goes with the sentinel, and only with it."""
    kernel.name_process(name)
    kernel.die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    target(*args)
