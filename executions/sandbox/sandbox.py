"""One sandbox from its boot to its destruction: it serves one run, never two."""

import contextlib
import filecmp
import io
import os
import re
import secrets
import select
import signal as signals
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from executions.sandbox import oci
from executions.sandbox.capture import Capture, Captured, Stop
from executions.sandbox.cgroup import Cgroup, Uncontrolled
from executions.sandbox.cgroups import Hierarchy
from executions.sandbox.network.attachment import Attachment, Network
from executions.sandbox.outputs import Outputs
from executions.sandbox.reaping import reap
from executions.sandbox.rootfs import Rootfs, make_directory, write_file
from executions.sandbox.runsc import Runsc
from executions.sandbox.shell import Shell, send_shell
from executions.sandbox.spec import (
    Bounds,
    End,
    InputFile,
    RunResult,
    RunSpec,
    SandboxError,
    Traffic,
)
from executions.sandbox.transcript import Transcript

RUNSC_FAILED = 128
"""How `runsc exec` ends when it fails itself; a program may end so too."""
DYING_SECS = 0.5
"""runsc sees the end of a sandbox's kernel a moment before that is dead."""

# What runsc adds to stderr of its own when the sandbox dies beneath an exec. What the program
# printed may end without a newline, and then stands on the same line.
_RUNSC_EPITAPH = re.compile(
    rb"(?:waiting on pid |(?:(?<=\n)|\A)(?![^\n]*waiting on pid ))"
    rb"[^\n]*urpc method [^\n]* failed: [^\n]*\n?\Z"
)
_EPITAPH_BYTES = 512


@dataclass(frozen=True, slots=True)
class Host:
    """What every sandbox of one worker shares."""

    runsc: Runsc
    hierarchy: Hierarchy | None
    """None: limits of CPU and memory were given up (BOXER_IGNORE_CGROUPS)."""
    tools: Path
    directory: Path
    """Each sandbox has a directory of its own below; only we can enter it."""
    bounds: Bounds
    dns_servers: tuple[str, ...]
    network: Network


class Sandbox:
    """A booted sandbox; destroy() it whatever happens, it leaves nothing behind."""

    def __init__(self, host: Host, sandbox_id: str) -> None:
        self.id = sandbox_id
        self._host = host
        self._base = host.directory / sandbox_id
        self._rootfs = Rootfs(self._base)
        hierarchy = host.hierarchy
        self._cgroup: Cgroup = (
            hierarchy.cgroup(sandbox_id) if hierarchy else Uncontrolled(self._base)
        )
        self._network = Attachment(host.network, sandbox_id, self._base)
        self._kernel: int | None = None
        """A pidfd: a number may be another process' one day."""
        self._shell: Shell | None = None

    @classmethod
    def adopted(cls, host: Host, sandbox_id: str, shell: Shell, kernel: int) -> "Sandbox":
        """One that another process booted and has moved below `host.directory`."""
        sandbox = cls(host, sandbox_id)
        sandbox._shell, sandbox._kernel = shell, kernel
        return sandbox

    def boot(self, image: Path, *, network: str, inputs: Sequence[InputFile], cwd: str) -> None:
        """Raises SandboxError (InputRefusedError for an input that can't be placed)."""
        try:
            self._boot(image, network, inputs, cwd, ahead=False)
        except OSError as error:
            raise SandboxError(f"preparing a sandbox: {error}") from error

    def boot_ahead(self, image: Path, *, network: str) -> None:
        """Boot it while nobody waits for it, and freeze it. Raises SandboxError."""
        try:
            self._boot(image, network, (), "/", ahead=True)
            self._cgroup.freeze()
        except OSError as error:
            raise SandboxError(f"preparing a sandbox: {error}") from error

    def _boot(
        self, image: Path, network: str, inputs: Sequence[InputFile], cwd: str, *, ahead: bool
    ) -> None:
        bounds = self._host.bounds
        self._base.mkdir(mode=0o700)
        make_directory(self._run)
        self._rootfs.compose(image, inputs, cwd, self._texts(network))
        self._rootfs.make_output(bounds.output_dir_bytes, bounds.output_dir_files, oci.NOBODY)
        self._cgroup.create()
        if ahead:
            self._cgroup.give_way()
        own_network = network == "sandbox"
        if own_network:
            self._network.attach()
        config = oci.sandbox(
            rootfs=self._rootfs.merged,
            output=self._rootfs.output,
            tools=self._host.tools,
            run=self._run,
            tmp_bytes=bounds.tmp_bytes,
            binds=self._rootfs.binds,
            netns=network != "host",
            netns_path=self._network.namespace if own_network else None,
        )
        pid = self._host.runsc.boot(
            self.id, self._base, config, network=network, doors=self._cgroup.doors
        )
        self._kernel = os.pidfd_open(pid)
        self._shell = self._host.runsc.open_shell(
            self.id, self._base, oci.shell(), doors=self._cgroup.doors
        )

    @property
    def _run(self) -> Path:
        return self._base / "run"

    def memory_bytes(self) -> int:
        return self._cgroup.memory_bytes()

    def cpu_ms(self) -> int:
        return self._cgroup.cpu_ns() // 1_000_000

    def hand_over(self, connection: socket.socket, directory: Path) -> None:
        """Give it to the process behind `connection`, whose sandboxes lie below `directory`.

        Whose directory it lies in, whose it is: from then on it goes with that process. Raises
        OSError, when it may be the other's already.
        """
        assert self._shell is not None  # noqa: S101 (it was booted)
        assert self._kernel is not None  # noqa: S101
        moved = directory / self.id
        self._base.rename(moved)
        self._base, self._rootfs = moved, Rootfs(moved)
        self._network = Attachment(self._host.network, self.id, moved)
        send_shell(connection, self.id.encode(), self._shell, self._kernel)
        self.let_go()

    def let_go(self) -> None:
        """Close what holds it here."""
        if self._shell is not None:
            self._shell.close()
            self._shell = None
        if self._kernel is not None:
            os.close(self._kernel)
            self._kernel = None

    def place(self, image: Path, inputs: Sequence[InputFile], cwd: str) -> None:
        """Put inputs into a sandbox that runs; see Rootfs.fits(). Raises SandboxError."""
        try:
            self._rootfs.place(image, inputs, cwd)
        except OSError as error:
            raise SandboxError(f"placing files in a sandbox: {error}") from error

    def _texts(self, network: str) -> dict[str, str]:
        """Files of /etc that a network needs; an image brings its own or none."""
        if network == "none":
            return {}
        servers = "".join(f"nameserver {server}\n" for server in self._host.dns_servers)
        return {
            "etc/resolv.conf": servers,
            "etc/hosts": "127.0.0.1 localhost boxer\n::1 localhost\n",
        }

    def execute(
        self,
        spec: RunSpec,
        image_env: Sequence[str],
        *,
        interrupt: int | None = None,
        transcript: Transcript | None = None,
    ) -> RunResult:
        """Run the command under its limits; the sandbox isn't good for another afterwards.

        `interrupt` is a descriptor that becomes readable when the run is to be ended from outside;
        `transcript` is filled with what the command prints, as it does. Raises SandboxError when a
        limit can't be set or the command can't be handed over.
        """
        try:
            return self._execute(spec, image_env, interrupt, transcript)
        except OSError as error:
            raise SandboxError(f"executing in a sandbox: {error}") from error

    def _execute(
        self,
        spec: RunSpec,
        image_env: Sequence[str],
        interrupt: int | None,
        transcript: Transcript | None,
    ) -> RunResult:
        if self._shell is None:
            raise SandboxError(f"sandbox {self.id} isn't booted")
        write_file(self._run, ("command",), io.BytesIO(oci.command(spec, image_env).encode()))
        self._cgroup.limit(spec.limits)
        self._cgroup.forget_peak()
        memory, cpu = self._cgroup.memory_bytes(), self._cgroup.cpu_ns()
        self._cgroup.thaw()
        capture = Capture(self._host.bounds.output_bytes, interrupt, spec.stdin, transcript)
        captured = capture.run(self._shell, spec.limits.wall_clock_secs, self.kill)
        lost = captured.stop is Stop.ENDED and self._died(captured.returncode)
        return _result(
            captured,
            lost=lost,
            out_of_memory=self._cgroup.oom_kills() > 0,
            cpu_ms=(self._cgroup.cpu_ns() - cpu) // 1_000_000 if self._measured else None,
            memory=max(0, self._cgroup.peak_bytes() - memory) if self._measured else None,
            traffic=self._network.figures(),
        )

    @property
    def _measured(self) -> bool:
        return not isinstance(self._cgroup, Uncontrolled)

    def _died(self, returncode: int | None) -> bool:
        """Whether the sandbox's kernel is dead, once `runsc exec` has ended."""
        return self._ended(DYING_SECS if returncode in (None, RUNSC_FAILED) else 0)

    def _ended(self, within_secs: float) -> bool:
        assert self._kernel is not None  # noqa: S101 (it was booted)
        poll = select.poll()
        poll.register(self._kernel, select.POLLIN)
        return bool(poll.poll(within_secs * 1000))

    def is_dead(self) -> bool:
        """Whether its kernel was killed while it was idle. What is frozen dies only when thawed.

        Fields: see proc_pid_status(5).
        """
        if self._kernel is None or self._ended(0):
            return True
        with contextlib.suppress(OSError):
            told = Path(f"/proc/self/fdinfo/{self._kernel}").read_text()
            pid = int(_field(told, "Pid"))
            status = Path(f"/proc/{pid}/status").read_text()
            pending = int(_field(status, "ShdPnd"), 16) | int(_field(status, "SigPnd"), 16)
            return bool(pending & 1 << signals.SIGKILL - 1)
        return True

    def kill(self) -> None:
        """End every process in it and reap them. /output stands still from now on."""
        self._cgroup.kill()
        if self._shell is not None and self._shell.pid:
            reap(self._shell.pid)
        if self._kernel is not None:
            # Where it had died by itself before, it isn't in the cgroup any more.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._kernel, os.WEXITED | os.WNOHANG)
        self.let_go()

    def outputs(self) -> Outputs:
        """What lies in /output; after kill()."""
        bounds = self._host.bounds
        return Outputs(self._rootfs.output, bounds.output_dir_files, bounds.output_dir_bytes)

    def destroy(self) -> None:
        """Leave nothing: processes, mounts, cgroup, runsc's state, directory. May be repeated."""
        self.kill()
        self._network.detach()
        self._cgroup.remove()
        self._host.runsc.forget(self.id)
        # Last, since whatever is left after a crash is found by its directory.
        self._rootfs.remove()


def _field(text: str, name: str) -> str:
    """The value of a line `name: value`."""
    return text.partition(f"{name}:")[2].split()[0]


def _result(
    captured: Captured,
    *,
    lost: bool,
    out_of_memory: bool,
    cpu_ms: int | None,
    memory: int | None,
    traffic: Traffic | None,
) -> RunResult:
    """Tell the ends apart. The kernel's own count tells out of memory from everything else."""
    stderr = _without_epitaph(captured.stderr) if lost else captured.stderr
    detail = ""
    exit_code: int | None = None
    signal: int | None = None
    if captured.stop is Stop.DEADLINE:
        end = End.TIMED_OUT
    elif captured.stop is Stop.OUTPUT:
        end = End.OUTPUT_LIMIT
    elif captured.stop is Stop.INTERRUPTED:
        end = End.INTERRUPTED
    elif out_of_memory and (lost or captured.returncode is None):
        end, exit_code, signal = End.OUT_OF_MEMORY, 137, 9
    elif lost:
        end, detail = End.BROKEN, "the sandbox's kernel died"
    elif captured.returncode is None:
        end, detail = End.BROKEN, "the client of the sandbox was killed"
    elif captured.returncode < 0:
        end, exit_code, signal = End.SIGNALLED, 128 - captured.returncode, -captured.returncode
    else:
        end, exit_code = End.EXITED, captured.returncode
    return RunResult(
        end=end,
        exit_code=exit_code,
        signal=signal,
        stdout=captured.stdout,
        stderr=stderr,
        wall_ms=round(captured.wall_secs * 1000),
        cpu_ms=cpu_ms,
        max_memory_bytes=memory,
        order=captured.order,
        detail=detail,
        traffic=traffic,
    )


def _without_epitaph(stderr: bytes) -> bytes:
    """Only the end is looked at: it is the program that decides what the pattern has to search."""
    return stderr[:-_EPITAPH_BYTES] + _RUNSC_EPITAPH.sub(b"", stderr[-_EPITAPH_BYTES:])


def install_tools(directory: Path, *, init: Path, busybox: Path) -> None:
    """Copies of the programs that every sandbox gets at oci.TOOLS; safe against many at once."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)  # whatever our umask is: the program, nobody, has to enter it
    make_directory(directory / "run", exist_ok=True)
    for name, source in (("init", init), ("sh", busybox), ("env", busybox)):
        target = directory / name
        if target.exists() and filecmp.cmp(source, target, shallow=False):
            continue
        temporary = directory / f".{name}.{secrets.token_hex(4)}"
        try:
            temporary.write_bytes(source.read_bytes())
            temporary.chmod(0o555)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def clear(host: Host) -> None:
    """Destroy every sandbox below `host.directory`: for a worker that is known to be dead.

    One that can't be destroyed doesn't keep the others. Raises SandboxError in the end.
    """
    failed = ""
    with contextlib.suppress(FileNotFoundError):
        for directory in sorted(host.directory.iterdir()):
            try:
                Sandbox(host, directory.name).destroy()
            except (SandboxError, OSError) as error:
                failed = failed or f"destroying sandbox {directory.name}: {error}"
    if failed:
        raise SandboxError(failed)
