"""Whoever waits for an execution's end is woken once, by PostgreSQL's NOTIFY.

One connection of the process listens for all its waiters, so three hundred waiting requests hold
one connection between them. It is opened with the first waiter and reopened when it breaks;
after a break every waiter is woken to look for itself, since a notification may have been missed.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import psycopg
from asgiref.sync import sync_to_async
from django.db import connection

from executions.errors import ServiceBusy

logger = logging.getLogger(__name__)

CHANNEL = "boxer_ended"
EVENTS_CHANNEL = "boxer_events"
"""A watched run has printed or changed: its id, and after a space what it uses, as JSON."""
WATCH_CHANNEL = "boxer_watch"
"""Somebody watches the run; its worker listens."""
CANCEL_CHANNEL = "boxer_cancel"
"""The run is to be ended; its worker listens."""
RECONNECT_SECS = (0.1, 0.2, 0.5, 1.0)


class Ended:
    """One waiter of one execution."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    async def wait(self, timeout: float) -> bool:  # noqa: ASYNC109 (a bound, not a cancellation)
        """Whether there was reason to look within `timeout` seconds; look at the row to be sure."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Watched(Ended):
    """One watcher of one execution, woken by its end and by whatever happens to it before."""

    def __init__(self) -> None:
        super().__init__()
        self.usage = ""
        """JSON of what was told last, to be taken."""


class Listener:
    """The process's one listening connection, bound to the event loop that it was started in."""

    def __init__(self, conninfo: dict[str, Any]) -> None:
        self._conninfo = conninfo
        self._waiters: defaultdict[str, set[Ended]] = defaultdict(set)
        self._watchers: defaultdict[str, set[Watched]] = defaultdict(set)
        self._connected = asyncio.Event()
        self._task = asyncio.create_task(self._listen(), name="boxer notifications")

    @property
    def alive(self) -> bool:
        return not self._task.done()

    @asynccontextmanager
    async def waiting_for(self, exec_id: str) -> AsyncIterator[Ended]:
        ended = Ended()
        self._waiters[exec_id].add(ended)
        try:
            await self._until_connected()
            yield ended
        finally:
            waiters = self._waiters[exec_id]
            waiters.discard(ended)
            if not waiters:
                del self._waiters[exec_id]

    @asynccontextmanager
    async def watching(self, exec_id: str) -> AsyncIterator[Watched]:
        watched = Watched()
        self._watchers[exec_id].add(watched)
        try:
            await self._until_connected()
            yield watched
        finally:
            watchers = self._watchers[exec_id]
            watchers.discard(watched)
            if not watchers:
                del self._watchers[exec_id]

    async def _until_connected(self) -> None:
        if self._connected.is_set():
            return
        try:
            async with asyncio.timeout(5):
                await self._connected.wait()
        except TimeoutError:
            raise ServiceBusy("the database can't be reached", retry_after=2) from None

    async def _listen(self) -> None:
        failures = 0
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    **self._conninfo, autocommit=True
                ) as listening:
                    await listening.execute(f"LISTEN {CHANNEL}")
                    await listening.execute(f"LISTEN {EVENTS_CHANNEL}")
                    failures = 0
                    self._connected.set()
                    self._wake_all()
                    async for notification in listening.notifies():
                        if notification.channel == EVENTS_CHANNEL:
                            self._wake_watchers(notification.payload)
                        else:
                            self._wake(notification.payload)
            except psycopg.Error as error:
                logger.warning("listening for ends of executions: %s", error)
            finally:
                self._connected.clear()
            await asyncio.sleep(RECONNECT_SECS[min(failures, len(RECONNECT_SECS) - 1)])
            failures += 1

    def _wake(self, exec_id: str) -> None:
        for ended in self._waiters.get(exec_id, ()):
            ended.wake()
        self._wake_watchers(exec_id)

    def _wake_watchers(self, payload: str) -> None:
        exec_id, _, usage = payload.partition(" ")
        for watched in self._watchers.get(exec_id, ()):
            watched.usage = usage or watched.usage
            watched.wake()

    def _wake_all(self) -> None:
        for exec_id in {*self._waiters, *self._watchers}:
            self._wake(exec_id)

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    @classmethod
    async def start(cls) -> Self:
        return cls(await sync_to_async(conninfo, thread_sensitive=True)())


def conninfo() -> dict[str, Any]:
    """How to connect beside Django, for whoever listens."""
    parameters = connection.get_connection_params()
    return {
        key: value
        for key, value in parameters.items()
        if key not in {"cursor_factory", "context", "prepare_threshold", "pool"}
    }


_listeners: dict[asyncio.AbstractEventLoop, Listener] = {}


async def listener() -> Listener:
    loop = asyncio.get_running_loop()
    found = _listeners.get(loop)
    if found is None or not found.alive:
        started = await Listener.start()
        found = _listeners.setdefault(loop, started)
        if found is not started:
            await started.close()
        for other in [known for known in _listeners if known.is_closed()]:
            del _listeners[other]
    return found


@asynccontextmanager
async def watching(exec_id: str) -> AsyncIterator[Watched]:
    """As waiting_for(), for all that happens to an execution that is watched."""
    async with (await listener()).watching(exec_id) as watched:
        yield watched


@asynccontextmanager
async def waiting_for(exec_id: str) -> AsyncIterator[Ended]:
    """Register for the end of an execution; do so before its row is committed.

    Raises ServiceBusy when the database can't be listened to within 5 s.
    """
    async with (await listener()).waiting_for(exec_id) as ended:
        yield ended
