"""Where the doctor runs its programs: sandboxes as runs of this host get them, bounds small."""

import contextlib
import dataclasses
import os
import secrets
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from django.conf import settings

from executions import workers
from executions.host import prepare_host, sandbox_host
from executions.sandbox import kernel
from executions.sandbox.network import upkeep
from executions.sandbox.sandbox import Host, Sandbox, clear
from executions.sandbox.spec import Bounds, InputFile, Limits, RunResult, RunSpec

KIB, MIB = 1 << 10, 1 << 20
BOUNDS = Bounds(output_bytes=64 * KIB, output_dir_bytes=MIB, output_dir_files=40, tmp_bytes=MIB)
"""Small ones are reached at once; they are set the same way as the installation's."""
LIMITS = Limits(cpu_cores=1.0, memory_mb=32, pids_limit=12, wall_clock_secs=20, nofile=24)
APPLETS = ("sh", "cat", "dd", "grep", "id", "ls", "nc", "sleep", "timeout", "touch", "wc", "yes")
ACCOUNTS = "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"


class Ward:
    """A host to examine, and an image with nothing but a static busybox, made on the spot."""

    def __init__(self, host: Host, area: Path, runsc_version: str) -> None:
        self.host = host
        self.area = area
        self.runsc_version = runsc_version
        self.seen: dict[str, object] = {}
        """What probes that share a program have kept of it."""

    @cached_property
    def rootfs(self) -> Path:
        root = self.area / "rootfs"
        for name in ("bin", "etc"):
            (root / name).mkdir(parents=True, mode=0o755)
        busybox = shutil.which("busybox")
        assert busybox is not None  # noqa: S101 (prepare_host() has installed it as a tool)
        shutil.copyfile(busybox, root / "bin" / "busybox")
        (root / "bin" / "busybox").chmod(0o755)
        for applet in APPLETS:
            (root / "bin" / applet).symlink_to("busybox")
        (root / "etc" / "passwd").write_text(ACCOUNTS)
        return root

    @contextmanager
    def sandbox(
        self, *, network: str = "none", inputs: Sequence[InputFile] = ()
    ) -> Iterator[Sandbox]:
        sandbox = Sandbox(self.host, f"boxer-{secrets.token_hex(10)}")
        try:
            sandbox.boot(self.rootfs, network=network, inputs=inputs, cwd="/")
            yield sandbox
        finally:
            sandbox.destroy()

    def run(self, script: str, *, network: str = "none", **limits: float) -> RunResult:
        """A line of shell in a sandbox of its own. Raises SandboxError."""
        with self.sandbox(network=network) as sandbox:
            return execute(sandbox, script, network=network, **limits)


def execute(sandbox: Sandbox, script: str, *, network: str = "none", **limits: float) -> RunResult:
    effective = dataclasses.replace(LIMITS, **limits)  # type: ignore[arg-type]
    command = ("sh", "-c", script)
    return sandbox.execute(RunSpec(sandbox.id, command, (), "/", network, effective), ())


@contextmanager
def open_ward() -> Iterator[Ward]:
    """For as long as it is open this process counts as a worker: if it is killed, the keeper of the
    home removes what it left. Raises SandboxError, OSError."""
    version = prepare_host()
    # Orphans of a sandbox are ours to reap, as in a worker.
    kernel.become_subreaper()
    home: Path = settings.BOXER_HOME
    directory = home / "tmp"
    directory.mkdir(exist_ok=True, mode=0o711)
    worker = workers.register(home, str(uuid.uuid4()))
    with contextlib.ExitStack() as closing:
        closing.callback(workers.forget, worker)
        host = dataclasses.replace(sandbox_host(worker.directory), bounds=BOUNDS)
        closing.callback(_leave, host, home)
        area = closing.enter_context(TemporaryDirectory(prefix="doctor-", dir=directory))
        os.chmod(area, 0o700)  # noqa: PTH101
        yield Ward(host, Path(area), version)


def _leave(host: Host, home: Path) -> None:
    clear(host)
    # Where the service runs, its workers need both, and it takes them away when it stops.
    if len(list((home / "workers").glob("*.lock"))) > 1:
        return
    upkeep.remove(host.network)
    if host.hierarchy is not None:
        host.hierarchy.remove_group()
