"""Starts processes, starts them again when they die, and leaves none of them behind."""

import ctypes
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

import psutil

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0
STEADY_SECS = 30.0
"""A part that lived this long is restarted without a delay that earlier deaths earned it."""
POLL_SECS = 0.05
"""How often readiness is asked for, and only while something isn't ready."""

MARK = "BOXER_SUPERVISED_BY"
"""In the environment of every part; nothing but last_resort.py looks at it."""

libc = ctypes.CDLL(None, use_errno=True)


class StartFailed(Exception):
    """A part didn't become ready in time, or can't be started at all; the message names it."""


class Stopped(Exception):
    """A signal asked to stop while something was being waited for."""


@dataclass(frozen=True)
class Part:
    """One process to keep alive."""

    name: str
    command: Callable[[], list[str]]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_signal: int = signal.SIGTERM
    kill_signal: int = signal.SIGKILL
    """Sent where `stop_signal` wasn't enough; SIGKILL follows if this isn't it."""
    grace_secs: float = 2.0
    inherited: tuple[int, ...] = ()
    stderr: Path | None = None
    """Rewritten at each start; our own where not given."""
    restart: bool = True
    outlives_us: bool = False
    """Whether nobody tells it when this process is killed."""


class Child:
    """A part and its present process."""

    def __init__(self, part: Part, mark: str) -> None:
        self.part = part
        self.mark = mark
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.start_again_at: float | None = None
        self.deaths = 0

    def start(self) -> None:
        part = self.part
        stderr = part.stderr.open("wb") if part.stderr else None
        signum = 0 if part.outlives_us else part.stop_signal
        try:
            self.process = subprocess.Popen(
                part.command(),
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                env=os.environ | part.env | {MARK: self.mark},
                pass_fds=part.inherited,
                start_new_session=True,
                # This process has one thread, and exec follows at once.
                preexec_fn=_die_with(os.getpid(), signum),  # noqa: PLW1509
            )
        finally:
            if stderr:
                stderr.close()
        self.started_at = time.monotonic()
        self.start_again_at = None

    def send(self, signum: int) -> None:
        """To the part and to what it has forked into its session."""
        if self.process is not None:
            self.process.send_signal(signum)

    def reap(self) -> str:
        """Bury a dead process and kill what is left of its process group; says how it died.

        The group's id can't be anybody else's while the zombie is there.
        """
        process, self.process = self.process, None
        if process is None:
            return "is gone"
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        _, status = os.waitpid(process.pid, 0)
        # Popen would wait for it again otherwise.
        process.returncode = code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"exited with {code}{self._last_words()}"

    def _last_words(self) -> str:
        if self.part.stderr is None:
            return ""
        lines = self.part.stderr.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
        return f" ({lines[-1].strip()})" if lines else ""

    def schedule(self) -> float:
        """Decide when to start again; the wait for it grows with each early death."""
        now = time.monotonic()
        if now - self.started_at > STEADY_SECS:
            self.deaths = 0
        delay = float(min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self.deaths, 8)))
        self.deaths += 1
        self.start_again_at = now + delay
        return delay


def _die_with(parent: int, signum: int) -> Callable[[], None]:
    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


class Supervisor:
    """Keeps parts alive while it is entered; on leaving stops them, the last started first.

    To be used by the main thread of a process, which reaps every child of it, adopted ones too.
    """

    def __init__(self, *, stop_within_secs: float = 9.0) -> None:
        self.stop_within_secs = stop_within_secs
        self.children: dict[str, Child] = {}
        self.mark = str(uuid.uuid4())
        self.signals = 0
        self._old_handlers: dict[int, signal._HANDLER] = {}
        self._wakeup, self._wakeup_writer = socket.socketpair()

    # ── Signals ──────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for end in (self._wakeup, self._wakeup_writer):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            self._old_handlers[signum] = signal.signal(signum, self._note)
        self._lifeline, self._lifeline_writer = os.pipe()
        self.start(self._last_resort())
        return self

    def _last_resort(self) -> Part:
        """Kills what is still there some time after this process was killed."""
        command = [sys.executable, "-IS", str(Path(__file__).with_name("last_resort.py"))]
        command += [str(self._lifeline), f"{MARK}={self.mark}"]
        return Part(
            "last-resort",
            lambda: command,
            stop_signal=signal.SIGKILL,
            inherited=(self._lifeline,),
            outlives_us=True,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        finally:
            signal.set_wakeup_fd(-1)
            for signum, handler in self._old_handlers.items():
                signal.signal(signum, handler)
            libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
            for end in (self._wakeup, self._wakeup_writer):
                end.close()
            for descriptor in (self._lifeline, self._lifeline_writer):
                os.close(descriptor)

    def _note(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if signum != signal.SIGCHLD:
            self.signals += 1

    def _sleep(self, timeout: float | None) -> None:
        """Until a signal comes or the time is over."""
        select.select([self._wakeup], [], [], timeout if timeout is None else max(0.0, timeout))
        with suppress(BlockingIOError):
            while self._wakeup.recv(4096):
                pass

    # ── Running ──────────────────────────────────────────────────────────────────────────────────

    def start(self, part: Part) -> None:
        child = self.children[part.name] = Child(part, self.mark)
        child.start()

    def wait_until(
        self, ready: Callable[[], bool], timeout: float, why_not: Callable[[], str]
    ) -> None:
        """Supervise until `ready()`. Raises StartFailed (`why_not()`), or Stopped on a signal."""
        deadline = time.monotonic() + timeout
        while not ready():
            if time.monotonic() > deadline:
                raise StartFailed(why_not())
            self._step(POLL_SECS)
        self._step(0)

    def run(self) -> None:
        """Supervise until a signal asks to stop."""
        with suppress(Stopped):
            while True:
                self._step(None)

    def _step(self, timeout: float | None) -> None:
        if self.signals:
            raise Stopped
        due = [c.start_again_at for c in self.children.values() if c.start_again_at is not None]
        if due:
            until_due = min(due) - time.monotonic()
            timeout = until_due if timeout is None else min(timeout, until_due)
        self._sleep(timeout)
        if self.signals:
            raise Stopped
        for child, how in self._reap():
            self._bury(child, how)
        for child in self.children.values():
            if child.start_again_at is not None and child.start_again_at <= time.monotonic():
                child.start()

    def _bury(self, child: Child, how: str) -> None:
        name = child.part.name
        if not child.part.restart:
            logger.debug("%s %s", name, how)
            del self.children[name]
            return
        logger.error("%s %s; starting it again in %.1f s", name, how, child.schedule())

    def _reap(self) -> list[tuple[Child, str]]:
        """Every child that has died by now; orphans that were adopted vanish without a word."""
        by_pid = {c.process.pid: c for c in self.children.values() if c.process is not None}
        dead: list[tuple[Child, str]] = []
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return dead
            if found is None:
                return dead
            child = by_pid.get(found.si_pid)
            if child is None:
                os.waitpid(found.si_pid, 0)
            else:
                dead.append((child, child.reap()))

    # ── Stopping ─────────────────────────────────────────────────────────────────────────────────

    def stop(self) -> None:
        """Stop the parts one after the other, the last started first, and kill what is left then.

        A further signal while this goes on cuts every grace short.
        """
        deadline = time.monotonic() + self.stop_within_secs
        enough = self.signals + 1 if self.signals else 1
        for child in reversed(list(self.children.values())):
            self._stop(child, deadline, enough)
        self.children.clear()
        self._kill_orphans()

    def _stop(self, child: Child, deadline: float, enough: int) -> None:
        part = child.part
        steps = [
            (part.stop_signal, part.grace_secs),
            (part.kill_signal, 1.0),
            (signal.SIGKILL, 1.0),
        ]
        for signum, grace in steps:
            if child.process is None:
                return
            child.send(signum)
            until = min(time.monotonic() + grace, max(deadline, time.monotonic() + 0.3))
            while child.process is not None and time.monotonic() < until:
                if self.signals >= enough and signum == part.stop_signal:
                    break
                self._sleep(until - time.monotonic())
                self._reap()
            if child.process is not None:
                name = signal.Signals(signum).name
                logger.warning("%s is still there after %s", part.name, name)

    def _kill_orphans(self) -> None:
        for _ in range(20):
            orphans = psutil.Process().children(recursive=True)
            for orphan in orphans:
                with suppress(psutil.NoSuchProcess):
                    orphan.kill()
            self._reap()
            if not orphans:
                return
            time.sleep(0.02)
