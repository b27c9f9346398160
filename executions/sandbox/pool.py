"""Sandboxes booted ahead of their runs: kept by one process of a host, taken by its workers.

A worker asks over a socket and is given a frozen sandbox whose shell waits: its directory is moved
below the worker's, its descriptors go along, and from then on it is the worker's as if it had been
booted there. Whoever dies, the keeper finds what is left by the directory it lies in. The worker
leaves its connection open for as long as its run takes, which tells the pool that there is real
work to give way to.
"""

import contextlib
import json
import logging
import os
import secrets
import selectors
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from executions.sandbox.demand import Demand, Kind
from executions.sandbox.images import Image, ImageStore
from executions.sandbox.reaping import reap_orphans
from executions.sandbox.sandbox import Host, Sandbox
from executions.sandbox.shell import receive_shell
from executions.sandbox.spec import SandboxError

logger = logging.getLogger(__name__)

REQUEST_BYTES = 4096
TAKE_SECS = 0.25
"""How long a worker waits for the pool's answer before it boots a sandbox itself."""
PIN_RETRY_SECS = 30.0
RETRY_SECS = 5.0
"""How long after a boot that failed the next is tried."""
IDLE_WAIT_SECS = 1.0
CALM_SECS = 0.03
"""How long no run must have been under way before one is booted ahead..."""
MOST_PATIENCE_SECS = 0.3
"""...unless one has been missing for so long: then a CPU that no run has is enough."""
SANDBOX_BYTES = 64 << 20
"""What an idle sandbox is reckoned with until it has been measured."""


class Waker(Protocol):
    def fileno(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    size: int
    memory_bytes: int
    idle_secs: float


@dataclass(slots=True)
class Warm:
    """An idle sandbox; `release` lets go of its image."""

    sandbox: Sandbox
    kind: Kind
    memory_bytes: int
    release: Callable[[], None]

    def destroy(self) -> None:
        try:
            self.sandbox.destroy()
        except (SandboxError, OSError):
            logger.exception("idle sandbox %s can't be destroyed", self.sandbox.id)
        self.release()


@dataclass(slots=True)
class Stock:
    """What there is, shared between the thread that answers and the one that boots."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    idle: dict[Kind, deque[Warm]] = field(default_factory=dict)
    references: dict[Kind, str] = field(default_factory=dict)

    def take(self, kind: Kind) -> Warm | None:
        with self.lock:
            waiting = self.idle.get(kind)
            return waiting.popleft() if waiting else None

    def add(self, warm: Warm) -> None:
        with self.lock:
            self.idle.setdefault(warm.kind, deque()).append(warm)

    def counts(self) -> Counter[Kind]:
        with self.lock:
            return Counter({kind: len(waiting) for kind, waiting in self.idle.items() if waiting})

    def memory_bytes(self) -> int:
        with self.lock:
            return sum(warm.memory_bytes for waiting in self.idle.values() for warm in waiting)


class Pool:
    """serve() answers until `stop` becomes readable, then destroys what is idle."""

    def __init__(
        self,
        host: Host,
        images: ImageStore,
        bounds: Bounds,
        *,
        pinned: Sequence[str],
        listener: socket.socket,
        stop: Waker,
    ) -> None:
        self._host = host
        self._images = images
        self._bounds = bounds
        self._listener = listener
        self._stop = stop
        self._stopping = threading.Event()
        self._work = threading.Event()
        self._demand = Demand(bounds.idle_secs)
        self._demand_lock = threading.Lock()
        # When to ask for each pinned image that isn't known yet; 0 for the first time.
        self._pins = dict.fromkeys(pinned, 0.0)
        self._pin_counts = Counter(pinned)
        self._pinned: dict[Kind, int] = {}
        self._stock = Stock()
        self._runs: set[socket.socket] = set()
        self._last_run = 0.0
        self._missing_since: float | None = None
        self._cpus = os.cpu_count() or 1

    # ── Answering ────────────────────────────────────────────────────────────────────────────────

    def serve(self) -> None:
        booting = threading.Thread(target=self._keep_warm, name="boots sandboxes ahead")
        booting.start()
        deaths_read, deaths_write = _deaths()
        try:
            with selectors.DefaultSelector() as selector:
                for waited_for in (self._listener, self._stop, deaths_read):
                    selector.register(waited_for, selectors.EVENT_READ)
                while not self._stopping.is_set():
                    for key, _ in selector.select():
                        self._handle(selector, key.fileobj, deaths_read)
        finally:
            self._stopping.set()
            self._work.set()
            booting.join()
            self._destroy(lambda _: True)
            os.close(deaths_read)
            os.close(deaths_write)

    def _handle(self, selector: selectors.BaseSelector, ready: object, deaths: int) -> None:
        if ready is self._stop:
            self._stopping.set()
        elif ready == deaths:
            os.read(deaths, 4096)
            reap_orphans()
        elif ready is self._listener:
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ)
        elif isinstance(ready, socket.socket):
            self._hear(selector, ready)

    def _hear(self, selector: selectors.BaseSelector, connection: socket.socket) -> None:
        """A worker's request, or the end of its run."""
        try:
            request = connection.recv(REQUEST_BYTES)
            if request:
                self._answer(connection, json.loads(request))
                return
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("a worker's request can't be answered: %r", error)
        selector.unregister(connection)
        if connection in self._runs:
            self._runs.discard(connection)
            self._last_run = time.monotonic()
        connection.close()
        self._work.set()

    def _answer(self, connection: socket.socket, request: dict[str, str]) -> None:
        if "status" in request:
            connection.send(json.dumps(self.status()).encode())
            return
        kind = Kind(request["digest"], request["network"])
        self._runs.add(connection)
        with self._demand_lock:
            self._demand.use(kind, time.monotonic())
        self._stock.references[kind] = request["reference"]
        warm = self._stock.take(kind)
        if warm is None:
            connection.send(b"none")
        else:
            self._give(warm, connection, Path(request["directory"]))
        self._work.set()

    def _give(self, warm: Warm, connection: socket.socket, directory: Path) -> None:
        try:
            warm.sandbox.hand_over(connection, directory)
            warm.release()
        except OSError:
            # Wherever its directory lies now: nobody runs in it.
            warm.destroy()
            raise

    def status(self) -> dict[str, int]:
        # The other thread may change both while they are looked at: copies.
        counts = self._stock.counts()
        unasked = sum(
            self._pin_counts[name] for name, due in list(self._pins.items()) if due == 0.0
        )
        missing = unasked + sum(
            max(0, number - counts[kind]) for kind, number in list(self._pinned.items())
        )
        # No more than fit are ever kept.
        missing = min(missing, max(0, self._bounds.size - counts.total()))
        return {"idle": counts.total(), "runs": len(self._runs), "pinned_missing": missing}

    # ── Booting ──────────────────────────────────────────────────────────────────────────────────

    def _keep_warm(self) -> None:
        """In a thread of its own: boots what is wanted and missing, one at a time."""
        while not self._stopping.is_set():
            self._work.clear()
            try:
                self._pin()
                wanted = self._wanted()
                self._destroy_unwanted(wanted)
                kind = self._next(wanted)
                if kind is None:
                    self._missing_since = None
                    self._work.wait(IDLE_WAIT_SECS)
                elif self._calm():
                    self._stock.add(self._boot(kind))
                else:
                    # The end of a run wakes it; calm has to be looked for.
                    self._work.wait(MOST_PATIENCE_SECS / 2 if self._runs else CALM_SECS / 2)
            except Exception:
                logger.exception("keeping sandboxes warm")
                self._stopping.wait(RETRY_SECS)

    def _calm(self) -> bool:
        """Whether to boot now: real work comes first, as long as it leaves room in the end."""
        now = time.monotonic()
        if not self._runs and now - self._last_run >= CALM_SECS:
            return True
        if self._missing_since is None:
            self._missing_since = now
        return now - self._missing_since >= MOST_PATIENCE_SECS and len(self._runs) < self._cpus

    def _pin(self) -> None:
        """Learn the digests of the pinned images, pulling what isn't here."""
        for reference, due in list(self._pins.items()):
            if time.monotonic() < due:
                continue
            try:
                with self._images.hold(reference) as image:
                    kind = Kind(image.digest, "none")
            except SandboxError as error:
                self._pins[reference] = time.monotonic() + PIN_RETRY_SECS
                logger.warning("pinned image %s can't be kept warm now: %s", reference, error)
            else:
                self._stock.references[kind] = reference
                self._pinned[kind] = self._pinned.get(kind, 0) + self._pin_counts[reference]
                del self._pins[reference]

    def _wanted(self) -> dict[Kind, int]:
        with self._demand_lock:
            return self._demand.wanted(self._bounds.size, self._pinned, time.monotonic())

    def _next(self, wanted: dict[Kind, int]) -> Kind | None:
        """What is wanted and missing most, if there is memory for it."""
        if self._stock.memory_bytes() + SANDBOX_BYTES > self._bounds.memory_bytes:
            return None
        counts = self._stock.counts()
        missing = {kind: number - counts[kind] for kind, number in wanted.items()}
        kind = max(missing, key=lambda kind: missing[kind], default=None)
        return kind if kind is not None and missing[kind] > 0 else None

    def _boot(self, kind: Kind) -> Warm:
        with contextlib.ExitStack() as held:
            image = held.enter_context(self._images.hold(self._stock.references[kind]))
            if image.digest != kind.digest:
                self._forget(kind)
                raise SandboxError(f"{image.reference} isn't {kind.digest} any more")
            sandbox = Sandbox(self._host, f"warm-{secrets.token_hex(10)}")
            try:
                sandbox.boot_ahead(image.rootfs, network=kind.network)
                memory = sandbox.memory_bytes()
            except BaseException:
                sandbox.destroy()
                raise
            return Warm(sandbox, kind, memory, held.pop_all().close)

    def _forget(self, kind: Kind) -> None:
        with self._demand_lock:
            self._demand.forget(kind)
        if self._pinned.pop(kind, None):
            self._pins[self._stock.references[kind]] = 0.0  # its tag means another image now

    def _destroy_unwanted(self, wanted: dict[Kind, int]) -> None:
        surplus = self._stock.counts()
        surplus.subtract(wanted)
        for kind, number in surplus.items():
            for _ in range(number):
                if (warm := self._stock.take(kind)) is not None:
                    warm.destroy()

    def _destroy(self, which: Callable[[Kind], bool]) -> None:
        for kind in [kind for kind in self._stock.counts() if which(kind)]:
            while (warm := self._stock.take(kind)) is not None:
                warm.destroy()


def _deaths() -> tuple[int, int]:
    """A pipe that becomes readable when a child has died."""
    reader, writer = os.pipe()
    for descriptor in (reader, writer):
        os.set_blocking(descriptor, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader, writer


def listen(path: Path) -> socket.socket:
    """The pool's socket, for its own user alone."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(os.fspath(path))
    path.chmod(0o600)
    listener.listen(128)
    return listener


@contextlib.contextmanager
def taken(path: Path, host: Host, image: Image, network: str) -> Iterator[Sandbox | None]:
    """A sandbox of the pool, now this worker's; None when there is none, or no pool.

    To be left when the run has ended and the sandbox is destroyed: the pool then boots another.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with connection:
        connection.settimeout(TAKE_SECS)
        try:
            connection.connect(os.fspath(path))
            request = {
                "reference": image.reference,
                "digest": image.digest,
                "network": network,
                "directory": os.fspath(host.directory),
            }
            connection.send(json.dumps(request).encode())
            received, answered = receive_shell(connection, REQUEST_BYTES), True
        except OSError:
            received, answered = None, False  # no pool, or one that doesn't come to it
        if not answered:
            # Whatever it sends from now on, it is told that nobody takes it.
            connection.close()
        if received is None:
            yield None
        else:
            sandbox_id, shell, kernel = received
            yield Sandbox.adopted(host, sandbox_id.decode(), shell, kernel)


def status(path: Path) -> dict[str, int] | None:
    """The pool's own word: idle sandboxes, runs under way, pinned ones that aren't warm yet."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(TAKE_SECS)
        try:
            connection.connect(os.fspath(path))
            connection.send(b'{"status": ""}')
            answer: dict[str, int] = json.loads(connection.recv(REQUEST_BYTES))
        except (OSError, ValueError):
            return None
        return answer
