"""One run from its claim to its end; the only caller of the sandbox library."""

import contextlib
import fnmatch
import logging
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, connections

from executions import notifications, services, workers
from executions.cluster.primitives import PipeEvent
from executions.companion import Companion
from executions.endings import ending_of, failed
from executions.errors import BoxerError
from executions.host import pool_is_used, pool_socket, sandbox_host
from executions.image_policy import prefetches, prefetching
from executions.image_policy.enforcement import held
from executions.image_policy.inventory import host_name
from executions.image_store import image_store
from executions.models import Execution
from executions.sandbox import pool
from executions.sandbox.images import Image, ImageStore
from executions.sandbox.rootfs import fits
from executions.sandbox.sandbox import Host, Sandbox, clear
from executions.sandbox.spec import (
    End,
    InputFile,
    Limits,
    RunSpec,
    SandboxError,
)
from executions.sandbox.transcript import Transcript
from executions.sealed import services as sealed
from executions.services import Ending
from filestore import services as filestore
from filestore.errors import FilestoreError

logger = logging.getLogger(__name__)

DATABASE_PATIENCE_SECS = 120.0
"""How long a result is held while the database is away."""

ANSWER_FIRST_SECS = 0.01
"""Ending a sandbox keeps the CPUs busy for as long as the answer needs them to reach its client."""

T = TypeVar("T")


class Interrupted(BaseException):
    """The worker is to end, and the run hasn't started."""


class Runner:
    """What a worker process keeps between its runs."""

    def __init__(
        self,
        worker: workers.Worker,
        host: Host,
        images: ImageStore,
        pool_path: Path | None,
        companion: Companion | None = None,
    ) -> None:
        self._worker = worker
        self._host = host
        self._images = images
        self._pool = pool_path
        self.interrupted = PipeEvent()
        self._companion = companion or Companion({})
        self._ends = select.epoll()
        for event in (self.interrupted, self._companion.cancelled):
            self._ends.register(event, select.EPOLLIN)
        self._preparing = False

    def interrupt(self) -> None:
        """From a signal handler: end the run that is under way, and take no other."""
        self.interrupted.set()
        if self._preparing:
            self._preparing = False
            raise Interrupted

    def run(self, exec_id: str) -> None:
        """Claim, prepare, execute, store, finish; then tidy up, off the path of the answer."""
        if self.interrupted.is_set():
            return
        self._companion.begin(exec_id)
        try:
            self._run(exec_id)
        finally:
            self._companion.end()

    def abort(self) -> None:
        """From a signal handler: the run that is under way was cancelled; a later one wasn't."""
        if self._preparing and self._companion.cancelled.is_set():
            self._preparing = False
            raise Interrupted

    def _run(self, exec_id: str) -> None:
        execution = _insist(
            partial(
                services.claim,
                exec_id=exec_id,
                host_id=self._worker.host_id,
                worker=self._worker.name,
            )
        )
        if execution is None:
            services.settle_overdue(exec_id=exec_id)
            return
        self._companion.claimed(execution.pk, watched=getattr(execution, "watched", False))
        # Whatever has to be tidied up is, once the end is written: nobody waits for that.
        with contextlib.ExitStack() as tidying:
            try:
                ending = self._attempt(execution, tidying)
                if ending is not None:
                    self._companion.end()
                    _insist(partial(services.finish, execution=execution, ending=ending))
                    self.interrupted.wait(ANSWER_FIRST_SECS)
            except Interrupted:
                # First: whoever takes it next boots a sandbox of the same name.
                tidying.close()
                connections.close_all()  # it may have been in the middle of a statement
                if self._companion.cancelled.is_set():
                    ending = Ending(outcome=None)
                    _insist(partial(services.finish, execution=execution, ending=ending))
                else:
                    _insist(partial(services.queue_again, execution=execution))
            except SystemExit:  # django-q2's TimeoutException: the task took longer than any may
                ending = failed("the worker gave up", "infra_error")
                _insist(partial(services.finish, execution=execution, ending=ending))
                raise

    def prefetch(self, prefetch_id: str) -> None:
        """Claim, pull, say what came of it."""
        if self.interrupted.is_set():
            return
        prefetch = _insist(
            partial(
                prefetches.claim,
                prefetch_id=prefetch_id,
                host_id=self._worker.host_id,
                worker=self._worker.name,
                host=host_name(),
            )
        )
        if prefetch is None:
            return
        try:
            self._preparing = True
            try:
                ended = prefetching.outcome(self._images, prefetch)
            finally:
                self._preparing = False
        except Interrupted:
            _insist(partial(prefetches.queue_again, prefetch=prefetch))
        else:
            if ended is not None:
                _insist(partial(prefetching.write, prefetch=prefetch, ended=ended))

    def close(self) -> None:
        """The worker ends in good order and leaves nothing to find."""
        workers.forget(self._worker)

    def _attempt(self, execution: Execution, tidying: contextlib.ExitStack) -> Ending | None:
        """How it ended; None when somebody else has ended it meanwhile."""
        try:
            return self._prepare_and_execute(execution, tidying)
        except (SandboxError, FilestoreError, BoxerError) as error:
            logger.warning("%s: %s", execution.exec_id, error)
            return failed(str(error), error.code)
        except Exception as error:
            logger.exception("%s failed", execution.exec_id)
            return failed(type(error).__name__, "infra_error")

    def _prepare_and_execute(
        self, execution: Execution, tidying: contextlib.ExitStack
    ) -> Ending | None:
        began = time.monotonic()
        self._preparing = True
        try:
            self.abort()  # what was said before this could be heard
            image = tidying.enter_context(held(self._images, execution))
            pulled = time.monotonic()
            sandbox, warm = self._booted(execution, image, tidying)
            booted = time.monotonic()
            self._preparing = False
            started = _insist(
                partial(
                    services.start,
                    execution=execution,
                    image_digest=image.digest,
                    pull_ms=round((pulled - began) * 1000),
                    start_ms=round((booted - pulled) * 1000),
                    warm=warm,
                    platform=self._host.runsc.platform,
                )
            )
            return self._execute(execution, sandbox, image) if started else None
        finally:
            self._preparing = False

    def _booted(
        self, execution: Execution, image: Image, tidying: contextlib.ExitStack
    ) -> tuple[Sandbox, bool]:
        """A booted sandbox with the inputs in it, and whether it comes from the pool."""
        inputs = _inputs(execution)
        if self._pool is not None and fits(image.rootfs, inputs, execution.cwd):
            taken = pool.taken(self._pool, self._host, image, execution.network)
            if (warm := tidying.enter_context(taken)) is not None:
                tidying.callback(warm.destroy)
                if not warm.is_dead():
                    warm.place(image.rootfs, inputs, execution.cwd)
                    return warm, True
            else:
                # What is given to us too late lies below our directory.
                tidying.callback(clear, self._host)
        return self._boot(execution, image, inputs, tidying), False

    def _boot(
        self,
        execution: Execution,
        image: Image,
        inputs: Sequence[InputFile],
        tidying: contextlib.ExitStack,
    ) -> Sandbox:
        sandbox = Sandbox(self._host, execution.exec_id)
        tidying.callback(sandbox.destroy)
        sandbox.boot(image.rootfs, network=execution.network, inputs=inputs, cwd=execution.cwd)
        return sandbox

    def _execute(self, execution: Execution, sandbox: Sandbox, image: Image) -> Ending:
        env = _insist(
            partial(
                sealed.opened,
                execution_id=execution.pk,
                exec_id=execution.exec_id,
                env=execution.env,
            )
        )
        transcript = Transcript()
        self._companion.executing(transcript, partial(_usage, sandbox))
        result = sandbox.execute(
            _spec(execution, env),
            image.env,
            interrupt=self._ends.fileno(),
            transcript=transcript,
        )
        if result.end is End.INTERRUPTED and self._companion.cancelled.is_set():
            return replace(ending_of(result, []), outcome=None, error="", error_code="")
        left_out: list[dict[str, str]] = []
        if execution.persist or execution.outputs is not None:
            sandbox.kill()
            left_out = _keep_outputs(execution, sandbox)
        return ending_of(result, left_out)


def _usage(sandbox: Sandbox) -> dict[str, int]:
    return {"cpu_ms": sandbox.cpu_ms(), "memory_bytes": sandbox.memory_bytes()}


def _spec(execution: Execution, env: Sequence[str]) -> RunSpec:
    return RunSpec(
        exec_id=execution.exec_id,
        cmd=tuple(execution.cmd),
        env=tuple(env),
        cwd=execution.cwd,
        network=execution.network,
        limits=Limits(
            cpu_cores=execution.cpu_cores,
            memory_mb=execution.memory_mb,
            pids_limit=execution.pids_limit,
            wall_clock_secs=execution.wall_clock_secs,
            nofile=execution.nofile,
        ),
        stdin=bytes(getattr(execution, "stdin_data", None) or b""),
    )


def _inputs(execution: Execution) -> list[InputFile]:
    if not execution.files:
        return []
    rows = execution.inputs.select_related("blob").order_by("pk")
    return [
        InputFile(row.path, partial(filestore.open_blob, blob=row.blob), row.built)
        for row in rows
        if row.blob
    ]


def _keep_outputs(execution: Execution, sandbox: Sandbox) -> list[dict[str, str]]:
    """Store what the program left in /output; what had to be left out, and why."""
    outputs = sandbox.outputs()
    for file in outputs.files():
        if not _is_wanted(file.path, execution.outputs):
            continue
        path = f"{services.output_directory(execution.exec_id)}{file.path}"
        try:
            filestore.store(owner_id=execution.owner_id, path=path, source=file.contents)
        except FilestoreError as error:
            outputs.leave_out(file.path, error.message)
    return outputs.left_out


def _is_wanted(path: str, patterns: Sequence[str] | None) -> bool:
    """Whether one of the patterns is the path, matches it, or names a directory above it."""
    if patterns is None:
        return True
    return any(
        fnmatch.fnmatchcase(path, pattern) or path.startswith(f"{pattern.rstrip('/')}/")
        for pattern in patterns
    )


def _insist(write: Callable[[], T]) -> T:
    """Do a write of ours even if the database is away for a while; each is safe to repeat."""
    deadline = time.monotonic() + DATABASE_PATIENCE_SECS
    pause = 0.0  # the connection may only be a stale one
    while True:
        try:
            return write()
        except (OperationalError, InterfaceError) as error:
            if time.monotonic() > deadline:
                raise
            logger.warning("the database is away: %s", error)
            connections.close_all()
            time.sleep(pause)
            pause = 0.3


# ── The process ──

_current: Runner | None = None


def start(*, host_id: str) -> Runner:
    """Make this process a worker."""
    global _current  # noqa: PLW0603 (one per process, made after its fork)
    worker = workers.register(settings.BOXER_HOME, host_id)
    host = sandbox_host(worker.directory)
    host.runsc.speaks_control()  # asked now, not on the path of the first run
    companion = Companion(notifications.conninfo())
    _current = Runner(
        worker,
        host,
        image_store(),
        pool_socket() if pool_is_used() else None,
        companion,
    )
    signal.signal(signal.SIGUSR1, lambda *_: current().abort())
    companion.start()
    return _current


def current() -> Runner:
    if _current is None:
        raise RuntimeError("this process isn't a worker")
    return _current
