"""Events, queues and timers that survive the death of any process that uses them."""

import contextlib
import ctypes
import os
import pickle
import select
import socket
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any

MESSAGE_BYTES = 128 * 1024
"""The longest message; a socket takes about 200 KiB in one piece."""

STOP = "STOP"


class PipeEvent:
    """A flag that is set once: a byte in a pipe which nobody reads.

    Safe to set from a signal handler, and selectable.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        return self._read

    def set(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"!")

    def is_set(self) -> bool:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> bool:
        return bool(select.select([self._read], [], [], timeout)[0])


class Mailbox:
    """Many writers, one reader; each message is one packet, taken whole or not at all."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def put(self, message: Any) -> None:
        self._writer.sendall(_pack(message))

    def get(self) -> Any:
        return pickle.loads(self._reader.recv(MESSAGE_BYTES))  # noqa: S301 (from our own processes)

    def empty(self) -> bool:
        return not select.select([self._reader], [], [], 0)[0]

    def qsize(self) -> int:
        """Whether something waits; the number isn't known."""
        return 0 if self.empty() else 1

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


def _pack(message: Any) -> bytes:
    packed = pickle.dumps(message)
    if len(packed) > MESSAGE_BYTES and isinstance(message, dict):
        # Only a task's result (a traceback) can be long; what it says at its end is what counts.
        shorter = {
            **message,
            "result": str(message.get("result"))[-4096:],
            "args": (),
            "kwargs": {},
        }
        packed = pickle.dumps(shorter)
    return packed


class Rendezvous:
    """Hands a message to a worker that is idle and alive, and holds none back.

    A worker that wants something connects and waits. The pusher takes such a connection before it
    takes a message from the queue, so that no message lies in a process that may be killed while
    another worker could have run it. The listening socket is made before the processes fork: those
    who wait keep their place when the pusher is killed and a new one takes over.
    """

    def __init__(self, path: Path, stop: PipeEvent, backlog: int) -> None:
        self._path = path
        self._stop = stop
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(os.fspath(path))
        path.chmod(0o600)
        self._listener.listen(backlog)

    def idle_worker(self, timeout: float) -> socket.socket | None:
        """The connection of a worker that waits, within `timeout` seconds."""
        if not _readable(self._listener, self._stop, timeout=timeout):
            return None
        if self._stop.is_set():
            return None
        return self._listener.accept()[0]

    def message(self, interrupted: PipeEvent) -> bytes | None:
        """Wait for the next message; None when the cluster or this worker is to stop."""
        while not (self._stop.is_set() or interrupted.is_set()):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                connection.connect(os.fspath(self._path))
                ready = _readable(connection, self._stop, interrupted)
                if connection in ready and (message := connection.recv(MESSAGE_BYTES)):
                    return message
            # The pusher died with this connection, or the cluster stops; a new one needs a moment.
            self._stop.wait(0.05)
        return None

    def empty(self) -> bool:
        """Part of a queue's interface: nothing ever waits here."""
        return True

    def qsize(self) -> int:
        return 0

    def close(self) -> None:
        self._listener.close()
        self._path.unlink(missing_ok=True)


def _readable(
    *waited_for: socket.socket | PipeEvent, timeout: float | None = None
) -> list[socket.socket | PipeEvent]:
    return select.select(waited_for, [], [], timeout)[0]


def deliver(connection: socket.socket, message: bytes) -> bool:
    """Whether a worker took the message; False when it had died."""
    with connection:
        try:
            if select.select([connection], [], [], 0)[0]:
                return False  # a waiting worker says nothing: this is the end of its connection
            connection.sendall(message)
        except OSError:
            return False
    return True


class Timer:
    """The seconds that a worker's task has left, as django-q2's guard counts them, without a lock.

    The guard and the worker may write at the same time; the worst that comes of it is that an idle
    worker is replaced for nothing.
    """

    def __init__(self) -> None:
        self._value = RawValue(ctypes.c_float, -1)

    @property
    def value(self) -> float:
        return float(self._value.value)

    @value.setter
    def value(self, seconds: float) -> None:
        self._value.value = seconds

    def get_lock(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()
