"""The pusher: brings each message of the queue to a worker that is free to run it."""

import logging
import socket
import time

import psycopg
from django.db import Error, connections

from executions import hosts
from executions.broker import ListenBroker
from executions.cluster.primitives import PipeEvent, Rendezvous, deliver

logger = logging.getLogger(__name__)

HEARTBEAT_SECS = 5.0
DRAINED_SECS = 1.0


class Pusher:
    """One loop: a free worker, then a message, then the two together. Says that the host lives."""

    def __init__(
        self, tasks: Rendezvous, stop: PipeEvent, broker: ListenBroker, host_id: str
    ) -> None:
        self._tasks = tasks
        self._stop = stop
        self._broker = broker
        self._host_id = host_id
        self._seen = 0.0
        self._takes = True

    def run(self) -> None:
        worker = None
        while not self._stop.is_set():
            try:
                self._say_alive()
                if not self._takes:
                    self._stop.wait(DRAINED_SECS)
                    continue
                worker = worker or self._tasks.idle_worker(HEARTBEAT_SECS)
                if worker is None:
                    continue
                message = self._broker.dequeue(HEARTBEAT_SECS)
                if message:
                    self._hand_over(worker, *message[0])
                    worker = None
            except (Error, psycopg.Error) as error:  # the latter while it waits for a message
                # The database is away: try again until it is back, holding nothing.
                logger.warning("taking messages from the queue: %s", error)
                connections.close_all()
                self._stop.wait(0.5)

    def _hand_over(self, worker: socket.socket, message_id: int, payload: str) -> None:
        if not deliver(worker, f"{message_id}\n{payload}".encode()):
            self._broker.release(message_id)

    def _say_alive(self) -> None:
        if time.monotonic() - self._seen >= HEARTBEAT_SECS:
            self._takes = hosts.alive(host_id=self._host_id)
            self._seen = time.monotonic()
