"""One sandbox from its boot to its destruction: it serves one run, never two."""

import contextlib
import re
import secrets
import signal as signals
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from executions.sandbox import kernel, oci
from executions.sandbox.capture import Capture, Captured, Stop
from executions.sandbox.cgroups import Cgroup, Hierarchy, Uncontrolled, reap
from executions.sandbox.outputs import Outputs
from executions.sandbox.rootfs import Rootfs
from executions.sandbox.runsc import Runsc
from executions.sandbox.spec import Bounds, End, InputFile, RunResult, RunSpec, SandboxError

FATAL_SIGNALS = frozenset(int(number) for number in signals.Signals)

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


class Sandbox:
    """A booted sandbox; destroy() it whatever happens, it leaves nothing behind."""

    def __init__(self, host: Host, sandbox_id: str) -> None:
        self.id = sandbox_id
        self._host = host
        self._base = host.directory / sandbox_id
        self._rootfs = Rootfs(self._base)
        hierarchy = host.hierarchy
        self._cgroup: Cgroup = hierarchy.cgroup(sandbox_id) if hierarchy else Uncontrolled()
        self._kernel_pid = 0

    def boot(self, image: Path, *, network: str, inputs: Sequence[InputFile], cwd: str) -> None:
        """Raises SandboxError (InputRefusedError for an input that can't be placed) or OSError."""
        self._base.mkdir(mode=0o700)
        bounds = self._host.bounds
        try:
            self._rootfs.compose(image, inputs, cwd, self._texts(network))
            self._rootfs.make_output(bounds.output_dir_bytes, bounds.output_dir_files, oci.NOBODY)
            self._cgroup.create()
            config = oci.sandbox(
                rootfs=self._rootfs.merged,
                output=self._rootfs.output,
                tools=self._host.tools,
                tmp_bytes=bounds.tmp_bytes,
                binds=self._rootfs.binds,
                netns=network != "host",
            )
            self._kernel_pid = self._host.runsc.boot(
                self.id, self._base, config, network=network, doors=self._cgroup.doors
            )
        except OSError as error:
            raise SandboxError(f"preparing a sandbox: {error}") from error
        if isinstance(self._cgroup, Uncontrolled):
            self._cgroup.roots = self._host.runsc.processes(self.id)

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
        self, spec: RunSpec, image_env: Sequence[str], *, interrupt: int | None = None
    ) -> RunResult:
        """Run the command under its limits; the sandbox isn't good for another afterwards.

        `interrupt` is a descriptor that becomes readable when the run is to be ended from outside.
        Raises SandboxError when a limit can't be set.
        """
        process = self._base / "process.json"
        process.write_text(oci.as_json(oci.command(spec, image_env)))
        self._cgroup.limit(spec.limits)
        self._cgroup.forget_peak()
        memory, cpu = self._cgroup.memory_bytes(), self._cgroup.cpu_ns()
        captured = Capture(self._host.bounds.output_bytes, interrupt).run(
            self._host.runsc.exec_command(self.id, process),
            spec.limits.wall_clock_secs,
            self.kill,
        )
        lost = captured.stop is Stop.ENDED and not self._alive()
        return _result(
            captured,
            lost=lost,
            out_of_memory=self._cgroup.oom_kills() > 0,
            cpu_ms=(self._cgroup.cpu_ns() - cpu) // 1_000_000 if self._measured else None,
            memory=max(0, self._cgroup.peak_bytes() - memory) if self._measured else None,
        )

    @property
    def _measured(self) -> bool:
        return not isinstance(self._cgroup, Uncontrolled)

    def _alive(self) -> bool:
        """Whether the sandbox's kernel still runs (a zombie doesn't)."""
        with contextlib.suppress(OSError, IndexError):
            status = Path(f"/proc/{self._kernel_pid}/stat").read_text()
            return status.rpartition(")")[2].split()[0] not in {"Z", "X"}
        return False

    def kill(self) -> None:
        """End every process in it and reap them. /output stands still from now on."""
        if isinstance(self._cgroup, Uncontrolled):
            self._cgroup.roots = self._host.runsc.processes(self.id)
        self._cgroup.kill()
        if self._kernel_pid:
            reap(self._kernel_pid)

    def outputs(self) -> Outputs:
        """What lies in /output; after kill()."""
        bounds = self._host.bounds
        return Outputs(self._rootfs.output, bounds.output_dir_files, bounds.output_dir_bytes)

    def destroy(self) -> None:
        """Leave nothing: processes, mounts, cgroup, runsc's state, directory. May be repeated."""
        self.kill()
        self._cgroup.remove()
        self._host.runsc.forget(self.id)
        # Last, since whatever is left after a crash is found by its directory.
        self._rootfs.remove()


def _result(
    captured: Captured, *, lost: bool, out_of_memory: bool, cpu_ms: int | None, memory: int | None
) -> RunResult:
    """Tell the ends apart. The kernel's own count tells out of memory from everything else."""
    killed = lost or captured.stop is not Stop.ENDED
    stderr = _without_epitaph(captured.stderr) if killed else captured.stderr
    detail = ""
    exit_code: int | None = None
    signal: int | None = None
    if captured.stop is Stop.DEADLINE:
        end = End.TIMED_OUT
    elif captured.stop is Stop.OUTPUT:
        end = End.OUTPUT_LIMIT
    elif captured.stop is Stop.INTERRUPTED:
        end = End.INTERRUPTED
    elif lost:
        end = End.OUT_OF_MEMORY if out_of_memory else End.BROKEN
        exit_code, signal = (137, 9) if out_of_memory else (None, None)
        detail = "" if out_of_memory else "the sandbox's kernel died"
    elif captured.returncode > 128 and captured.returncode - 128 in FATAL_SIGNALS:
        end, exit_code, signal = End.SIGNALLED, captured.returncode, captured.returncode - 128
    elif captured.returncode < 0:
        end, detail = End.BROKEN, f"runsc exec was ended by signal {-captured.returncode}"
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
        detail=detail,
    )


def _without_epitaph(stderr: bytes) -> bytes:
    """Only the end is looked at: it is the program that decides what the pattern has to search."""
    return stderr[:-_EPITAPH_BYTES] + _RUNSC_EPITAPH.sub(b"", stderr[-_EPITAPH_BYTES:])


def install_tools(directory: Path, *, init: Path, busybox: Path) -> None:
    """Copies of the programs that every sandbox gets at oci.TOOLS; safe against many at once."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    for name, source in (("init", init), ("sh", busybox), ("env", busybox)):
        target = directory / name
        if target.exists() and target.stat().st_size == source.stat().st_size:
            continue
        temporary = directory / f".{name}.{secrets.token_hex(4)}"
        temporary.write_bytes(source.read_bytes())
        temporary.chmod(stat.S_IRUSR | stat.S_IXUSR | 0o055)
        temporary.replace(target)


def clear(host: Host) -> None:
    """Destroy every sandbox below `host.directory`: for a worker that is known to be dead."""
    with contextlib.suppress(FileNotFoundError):
        for directory in sorted(host.directory.iterdir()):
            Sandbox(host, directory.name).destroy()
    leftover = kernel.mounts_below(host.directory)
    if leftover:
        raise SandboxError(f"still mounted: {leftover[0]}")
