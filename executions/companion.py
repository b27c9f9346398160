"""A worker's second thread: hears that its run is to be cancelled or is watched, and publishes it.

It sleeps on one connection of its own. While nobody watches, the run tells it nothing.
"""

import contextlib
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg

from executions.events.pieces import Piece, pieces
from executions.events.publishing import is_watched, publish, tell
from executions.notifications import CANCEL_CHANNEL, WATCH_CHANNEL
from executions.sandbox.transcript import Transcript

logger = logging.getLogger(__name__)

USAGE_SECS = 1.0
RECONNECT_SECS = 0.5
PUBLISH_PIECES = 64


class Flag:
    """Set by one thread and seen by another; selectable, and can be taken down again."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._descriptor

    def set(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def is_set(self) -> bool:
        return bool(select.select([self._descriptor], [], [], 0)[0])


class Companion:
    """`cancelled` is set when the run that is under way is to be ended; SIGUSR1 tells it, too."""

    def __init__(self, conninfo: Mapping[str, Any]) -> None:
        self.cancelled = Flag()
        self._conninfo = dict(conninfo)
        self._wake = Flag()
        self._lock = threading.Lock()
        self._exec_id = ""
        self._execution_id = 0
        self._watched = False
        self._stirred = False
        self._transcript: Transcript | None = None
        self._usage: Callable[[], dict[str, int]] | None = None
        self._position = 0
        self._usage_due = 0.0

    def start(self) -> None:
        """In the main thread, which is the one that is told."""
        self._main = threading.get_ident()
        threading.Thread(target=self._live, name="boxer companion", daemon=True).start()

    # ── The run's thread ──

    def begin(self, exec_id: str) -> None:
        """Before it is claimed: no word on it can be missed from then on."""
        with self._lock:
            self.cancelled.clear()
            self._exec_id, self._execution_id = exec_id, 0
            self._watched, self._transcript, self._usage = False, None, None
            self._position = 0

    def claimed(self, execution_id: int, *, watched: bool) -> None:
        with self._lock:
            self._execution_id = execution_id
            self._watched = self._watched or watched
        self._stir()

    def executing(self, transcript: Transcript, usage: Callable[[], dict[str, int]]) -> None:
        """It has started: what it prints comes into `transcript`."""
        with self._lock:
            self._transcript, self._usage = transcript, usage
            if self._watched:
                transcript.told = self._wake.set
        self._stir()

    def end(self) -> None:
        with self._lock:
            if self._transcript is not None:
                self._transcript.told = None
            self._exec_id, self._watched = "", False
            self._transcript = self._usage = None

    def _stir(self) -> None:
        """Have the watchers look at the status; costs nothing where there is none."""
        if self._watched:
            self._stirred = True
            self._wake.set()

    # ── The thread of its own ──

    def _live(self) -> None:
        while True:
            try:
                with psycopg.connect(**self._conninfo, autocommit=True) as connection:
                    self._serve(connection)
            except (psycopg.Error, OSError) as error:
                logger.warning("listening for what concerns a run: %s", error)
            time.sleep(RECONNECT_SECS)

    def _serve(self, connection: psycopg.Connection[Any]) -> None:
        connection.add_notify_handler(self._heard)
        connection.execute(f"LISTEN {CANCEL_CHANNEL}")
        connection.execute(f"LISTEN {WATCH_CHANNEL}")
        self._look(connection)
        socket = connection.fileno()
        while True:
            timeout = USAGE_SECS if self._watched else None
            ready = select.select([socket, self._wake.fileno()], [], [], timeout)[0]
            if socket in ready:
                connection.execute("SELECT 1")  # what has come is handed to _heard()
            self._wake.clear()
            if self._watched:
                self._publish(connection)

    def _look(self, connection: psycopg.Connection[Any]) -> None:
        """Something may have been said while nobody listened."""
        with self._lock:
            exec_id = self._exec_id
        if not exec_id:
            return
        sql = "SELECT id, cancel_requested_at FROM executions_execution WHERE exec_id = %s"
        row = connection.execute(sql, [exec_id]).fetchone()
        if row and row[1] is not None:
            self._cancel(exec_id)
        if row and is_watched(connection, row[0]):
            self._watch(exec_id)

    def _heard(self, notify: psycopg.Notify) -> None:
        if notify.channel == CANCEL_CHANNEL:
            self._cancel(notify.payload)
        else:
            self._watch(notify.payload)

    def _cancel(self, exec_id: str) -> None:
        with self._lock:
            if exec_id != self._exec_id:
                return
            self.cancelled.set()
        signal.pthread_kill(self._main, signal.SIGUSR1)

    def _watch(self, exec_id: str) -> None:
        with self._lock:
            if exec_id != self._exec_id or self._watched:
                return
            self._watched = self._stirred = True
            if self._transcript is not None:
                self._transcript.told = self._wake.set
        self._wake.set()

    def _publish(self, connection: psycopg.Connection[Any]) -> None:
        with self._lock:
            exec_id, execution_id = self._exec_id, self._execution_id
            transcript, usage, start = self._transcript, self._usage, self._position
            stirred, self._stirred = self._stirred, False
        if not execution_id:
            return
        if stirred:
            tell(connection, exec_id)
        if transcript is not None:
            found = _new(transcript, start)
            if found:
                publish(connection, execution_id, exec_id, found)
                with self._lock:
                    if exec_id == self._exec_id:
                        self._position = found[-1].end
            if len(found) == PUBLISH_PIECES:
                self._wake.set()
        if usage is not None and time.monotonic() >= self._usage_due:
            self._usage_due = time.monotonic() + USAGE_SECS
            with contextlib.suppress(OSError, ValueError):
                tell(connection, exec_id, usage())


def _new(transcript: Transcript, start: int) -> list[Piece]:
    found = []
    for piece in pieces(transcript.streams, transcript.order, start):
        found.append(piece)
        if len(found) == PUBLISH_PIECES:
            break
    return found
