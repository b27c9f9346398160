"""The only caller of the runsc binary: boots a sandbox and opens the shell that waits in it."""

import contextlib
import json
import logging
import os
import re
import select
import shutil
import signal as signals
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from executions.sandbox import control, processes
from executions.sandbox.control import ControlError
from executions.sandbox.oci import READY
from executions.sandbox.shell import Shell, spawn_shell
from executions.sandbox.spec import SandboxError

logger = logging.getLogger(__name__)

BOOT_TIMEOUT_SECS = 30.0
VERSION_TIMEOUT_SECS = 10.0
SAID_BYTES = 1 << 16

FATAL_SIGNALS = frozenset(range(1, 65)) - {
    # These end no program (see signal(7)): 128 + 17 is a program's own exit code.
    signals.SIGCHLD,
    signals.SIGCONT,
    signals.SIGSTOP,
    signals.SIGTSTP,
    signals.SIGTTIN,
    signals.SIGTTOU,
    signals.SIGURG,
    signals.SIGWINCH,
}

# Enters the sandbox's cgroup, then becomes runsc: what runsc starts is born inside, the limits hold
# from its first moment. The shell is the host's busybox and the script is fixed.
_ENTER = 'for door in $1; do echo 0 > "$door" || exit 125; done; shift; exec "$@"'

# gVisor #10704: since Linux 6.11 a runsc from before its fix takes every network namespace for the
# host's by what it sees in /proc/sys/net, so it is shown nothing there.
_MASK = '"$0" mount -t tmpfs -o ro,size=4k none /proc/sys/net && exec "$@"'
_MISTAKEN = "in root network namespace"
_mistaken: set[str] = set()
"""Those that were seen to be, by Runsc._identity(): each process finds out by one failed boot."""

# The same for the command's client. Its exit code goes to descriptor 3, and so does what the shell
# itself has to say: that its client was killed, which a code alone doesn't tell from the program's.
_REPORT = (
    'exec 4>&2 2>&3; for door in $1; do echo 0 > "$door" || exit 125; done; shift; '
    '(exec "$@" 2>&4 3>&- 4>&-); echo $? >&3'
)


class RunscError(SandboxError):
    """runsc is missing or failed; the message has the end of what it said."""


@dataclass(frozen=True, slots=True)
class Runsc:
    """How to call runsc: its binary, the platform, and the directory of its state."""

    binary: str
    platform: str
    state: Path
    busybox: str = "busybox"

    def version(self) -> str:
        """For example `release-20240729.0` or `0.0~20240729.0`. Raises RunscError."""
        try:
            done = subprocess.run(
                [self.binary, "--version"],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=VERSION_TIMEOUT_SECS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RunscError(f"{self.binary} --version: {error}") from error
        found = re.search(rb"version (\S+)", done.stdout)
        if not found:
            raise RunscError(f"{self.binary} --version: {tail(done.stderr or done.stdout)}")
        return found[1].decode(errors="replace")

    def boot(
        self,
        sandbox_id: str,
        bundle: Path,
        config: dict[str, Any],
        *,
        network: str,
        doors: Sequence[str],
    ) -> int:
        """Create and start a sandbox from inside the cgroup behind `doors`; the pid of its kernel.

        Its first process must be one that waits. Raises RunscError; then processes may be left in
        the cgroup and files in `state`, which are the caller's to remove.
        """
        (bundle / "config.json").write_text(json.dumps(config))
        mask = network == "sandbox" and self._identity() in _mistaken
        try:
            return self._boot(sandbox_id, bundle, network, doors, mask=mask)
        except RunscError as error:
            if mask or network != "sandbox" or _MISTAKEN not in str(error):
                raise
        self.forget(sandbox_id)
        _mistaken.add(self._identity())
        return self._boot(sandbox_id, bundle, network, doors, mask=True)

    def _identity(self) -> str:
        """Changes with the binary and with the kernel."""
        found = shutil.which(self.binary)
        return f"{os.uname().release} {found} {Path(found).stat().st_mtime_ns if found else 0}"

    def _boot(
        self, sandbox_id: str, bundle: Path, network: str, doors: Sequence[str], *, mask: bool
    ) -> int:
        pid_file = bundle / "pid"
        command = [
            *self._flags(network),
            "run",
            "--detach",
            f"--bundle={bundle}",
            f"--pid-file={pid_file}",
            sandbox_id,
        ]
        if mask:
            box = self.busybox
            private = [box, "unshare", "-m", "--propagation", "slave", box, "sh", "-c", _MASK]
            command = [*private, shutil.which(box) or box, *command]
        if doors:
            command = [self.busybox, "sh", "-c", _ENTER, "enter", " ".join(doors), *command]
        said = bundle / "boot.log"
        # To a file, not a pipe: the sandbox keeps what it is given, and a pipe would never end.
        # Only root may write to it: a program finds it as /proc/1/fd/2 and could fill our disk.
        with os.fdopen(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
            try:
                code = processes.run(command, stderr=log, timeout=BOOT_TIMEOUT_SECS)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise RunscError(f"booting a sandbox: {error}: {tail(_read(said))}") from error
        if code != 0:
            raise RunscError(f"booting a sandbox: runsc exited {code}: {tail(_read(said))}")
        return int(pid_file.read_text())

    def speaks_control(self) -> bool:
        """Whether its control socket is known (control.py); asked once in a process' life."""
        return _speaks_control(self)

    def open_shell(
        self, sandbox_id: str, bundle: Path, process: dict[str, Any], *, doors: Sequence[str]
    ) -> Shell:
        """Execute a process that waits in a booted sandbox; returns when it has said oci.READY.

        What it takes on the host, if anything, is in the cgroup, too. Raises RunscError, OSError.
        """
        shell = self._shell(sandbox_id, bundle, process, doors)
        try:
            _await_ready(shell)
        except BaseException:
            shell.close()
            raise
        return shell

    def _shell(
        self, sandbox_id: str, bundle: Path, process: dict[str, Any], doors: Sequence[str]
    ) -> Shell:
        if self.speaks_control():
            try:
                return control.open_shell(self._socket(sandbox_id), sandbox_id, process)
            except ControlError as error:  # another release has been installed meanwhile?
                logger.warning("sandbox %s: %s; using runsc exec", sandbox_id, error)
        process_file = bundle / "shell.json"
        process_file.write_text(json.dumps(process))
        command = [*self._flags("none"), "exec", f"--process={process_file}", sandbox_id]
        return spawn_shell([self.busybox, "sh", "-c", _REPORT, "enter", " ".join(doors), *command])

    def forget(self, sandbox_id: str) -> None:
        """Remove the state of a sandbox whose processes are gone."""
        for name in self._state_files(sandbox_id):
            with contextlib.suppress(FileNotFoundError):
                (self.state / name).unlink()

    @staticmethod
    def _state_files(sandbox_id: str) -> Sequence[str]:
        name = f"{sandbox_id}_sandbox:{sandbox_id}"
        return (f"{name}.state", f"{name}.lock", _socket_name(sandbox_id))

    def _socket(self, sandbox_id: str) -> Path:
        return self.state / _socket_name(sandbox_id)

    def _flags(self, network: str) -> list[str]:
        # Its cgroups are ours (cgroups.py); no overlay of its own, since the root is read-only.
        return [
            self.binary,
            f"--root={self.state}",
            f"--platform={self.platform}",
            f"--network={network}",
            "--ignore-cgroups",
            "--overlay2=none",
        ]


def _socket_name(sandbox_id: str) -> str:
    return f"runsc-{sandbox_id}.sock"


@cache
def _speaks_control(runsc: Runsc) -> bool:
    try:
        return control.is_spoken(runsc.version())
    except RunscError:
        return False


def exit_code(told: bytes) -> int | None:
    """What a shell's `status` told: an exit code, -N for signal N; None when it was killed.

    `runsc exec` can't tell a signal from a program that exits with 128 + N itself, the control
    socket can.
    """
    if told.startswith(b"{"):
        return control.exit_code(told)
    code = int(told) if told.strip().isdigit() else None
    return 128 - code if code is not None and code - 128 in FATAL_SIGNALS else code


def _await_ready(shell: Shell) -> None:
    """Read exactly what the shell says when it waits; what comes after is the program's."""
    deadline = time.monotonic() + BOOT_TIMEOUT_SECS
    said = b""
    while said != READY:
        readable = select.select([shell.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]
        chunk = os.read(shell.stdout, len(READY) - len(said)) if readable else b""
        said += chunk
        if not chunk or not READY.startswith(said):
            os.set_blocking(shell.stderr, False)
            with contextlib.suppress(BlockingIOError):
                said += os.read(shell.stderr, SAID_BYTES)
            raise RunscError(f"opening a shell in a sandbox: {tail(said)}")


def _read(file: Path) -> bytes:
    """The end of it: a sandbox that goes wrong may have said a lot."""
    with contextlib.suppress(OSError), file.open("rb") as said:
        said.seek(max(0, file.stat().st_size - SAID_BYTES))
        return said.read(SAID_BYTES)
    return b""


def tail(said: bytes) -> str:
    """The last lines of what a tool said, for a message."""
    lines = said.decode(errors="replace").strip().splitlines()
    return " | ".join(lines[-3:])[-500:] or "it said nothing"
