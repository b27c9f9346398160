"""Server-sent events of one watcher (WHATWG HTML, 9.2): output by position, so it can resume."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

from executions.api.asynchronous import in_kept_thread
from executions.api.executions.hub import Broadcast, watching
from executions.events import services as events
from executions.events.pieces import Piece

KEEP_ALIVE_SECS = 15.0
CATCH_UP_SECS = 0.2
NAMES = ("stdout", "stderr")


async def stream(execution_id: int, exec_id: str, position: int) -> AsyncIterator[bytes]:
    """From `position`, the bytes of both streams that the watcher has, until the run has ended."""
    async with watching(execution_id, exec_id, position) as broadcast:
        watcher = _Watcher(broadcast, position)
        while True:
            changed = broadcast.changed
            over = broadcast.over
            async for event in watcher.news():
                yield event
            if over:
                break
            try:
                async with asyncio.timeout(KEEP_ALIVE_SECS):
                    await changed.wait()
            except TimeoutError:
                yield b": still there\n\n"
        yield _event("end", broadcast.final or {}, watcher.position)


class _Watcher:
    def __init__(self, broadcast: Broadcast, position: int) -> None:
        self._broadcast = broadcast
        self.position = position
        self._status = ""
        self._usages = broadcast.usages

    async def news(self) -> AsyncIterator[bytes]:
        broadcast = self._broadcast
        status, usages = broadcast.status, broadcast.usages
        if status and status != self._status:
            self._status = status
            yield _event("status", {"status": status}, self.position)
        while self.position < broadcast.end:
            found = broadcast.since(self.position)
            if self.position < broadcast.start:
                found = await self._earlier()
            for piece in found:
                if piece.end > self.position:
                    yield self._output(piece)
        if usages != self._usages:
            self._usages = usages
            yield _event("usage", json.loads(broadcast.usage))

    async def _earlier(self) -> list[Piece]:
        """What the broadcast doesn't hold (any more)."""
        look = await in_kept_thread(
            events.look, execution_id=self._broadcast.execution_id, position=self.position
        )
        if look is None:
            self.position = self._broadcast.end
            return []
        if not look.pieces:
            if look.ended:
                self.position = self._broadcast.end
            await asyncio.sleep(CATCH_UP_SECS)
        return look.pieces

    def _output(self, piece: Piece) -> bytes:
        data = piece.data[max(0, self.position - piece.position) :]
        self.position = piece.end
        encoded = base64.b64encode(data).decode()
        return _event(NAMES[piece.stream], {"base64": encoded}, self.position)


def _event(name: str, data: dict[str, Any], position: int | None = None) -> bytes:
    number = "" if position is None else f"id: {position}\n"
    return f"{number}event: {name}\ndata: {json.dumps(data)}\n\n".encode()
