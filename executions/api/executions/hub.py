"""One reader for all who watch a run in this process, however many those are."""

import asyncio
import contextvars
import json
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from django.db import InterfaceError, OperationalError
from psycopg_pool import PoolTimeout

from executions import notifications
from executions.api.asynchronous import in_kept_thread
from executions.api.executions.serializers import told
from executions.errors import ServiceBusy
from executions.events import services as events
from executions.events.pieces import Piece
from executions.models import Execution

logger = logging.getLogger(__name__)

BUFFER_BYTES = 4 << 20
"""Of the newest output; a watcher that lags further behind reads for itself."""
LOOK_ANYWAY_SECS = 15.0
AWAY_SECS = 0.3


class Broadcast:
    """What is known of one run; `changed` is set, and replaced, whenever that becomes more."""

    def __init__(self, execution_id: int, exec_id: str, position: int) -> None:
        self.execution_id = execution_id
        self.exec_id = exec_id
        self.start = self.end = position
        self.status = ""
        self.usage = ""
        self.usages = 0
        self.final: dict[str, Any] | None = None
        self.over = False
        self.changed = asyncio.Event()
        self.watchers = 0
        self._pieces: deque[Piece] = deque()
        # A context of its own: that of the first watcher's request ends before this does.
        self.task = asyncio.get_running_loop().create_task(
            self._run(), name=f"watching {exec_id}", context=contextvars.Context()
        )

    def since(self, position: int) -> list[Piece]:
        """Pieces from `position` on; the first may begin before it."""
        return [piece for piece in self._pieces if piece.end > position]

    async def _run(self) -> None:
        while not self.over:
            try:
                async with notifications.watching(self.exec_id) as bell:
                    await in_kept_thread(
                        events.watch, execution_id=self.execution_id, exec_id=self.exec_id
                    )
                    await self._follow(bell)
            except (OperationalError, InterfaceError, PoolTimeout, ServiceBusy) as error:
                logger.warning("watching %s: %s", self.exec_id, error)
                await asyncio.sleep(AWAY_SECS)
            except Exception:
                self._finish(None)
                raise

    async def _follow(self, bell: notifications.Watched) -> None:
        while True:
            look = await in_kept_thread(
                events.look, execution_id=self.execution_id, position=self.end
            )
            if look is None:
                self._finish(None)
                return
            self._add(look.pieces)
            self.status = look.status
            if look.ended:
                self._finish(await in_kept_thread(_final, self.execution_id))
                return
            self._tell()
            if not look.full:
                await bell.wait(LOOK_ANYWAY_SECS)
                if bell.usage:
                    self.usage, bell.usage = bell.usage, ""
                    self.usages += 1

    def _add(self, found: list[Piece]) -> None:
        for piece in found:
            self._pieces.append(piece)
            self.end = piece.end
        while self.end - self.start > BUFFER_BYTES and len(self._pieces) > 1:
            self.start = self._pieces.popleft().end

    def _finish(self, final: dict[str, Any] | None) -> None:
        self.final = final
        self.over = True
        self._tell()

    def _tell(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


def _final(execution_id: int) -> dict[str, Any] | None:
    rows = Execution.objects.select_related("owner", "rerun_of")
    execution = rows.filter(pk=execution_id).first()
    return None if execution is None else json.loads(json.dumps(told(execution), default=str))


_broadcasts: dict[tuple[asyncio.AbstractEventLoop, int], Broadcast] = {}


@asynccontextmanager
async def watching(execution_id: int, exec_id: str, position: int) -> AsyncIterator[Broadcast]:
    """The run's broadcast; it ends with its last watcher."""
    key = (asyncio.get_running_loop(), execution_id)
    broadcast = _broadcasts.get(key)
    if broadcast is None or broadcast.over:
        broadcast = _broadcasts[key] = Broadcast(execution_id, exec_id, position)
    broadcast.watchers += 1
    try:
        yield broadcast
    finally:
        broadcast.watchers -= 1
        if not broadcast.watchers:
            broadcast.task.cancel()
            if _broadcasts.get(key) is broadcast:
                del _broadcasts[key]
