"""Fixtures of the sandbox library: unpacked images, and a host of one's own that must end clean."""

import dataclasses
import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from executions.sandbox import control, kernel, runsc
from executions.sandbox.cgroups import Hierarchy
from executions.sandbox.images import ImageStore
from executions.sandbox.network.home import network_of
from executions.sandbox.runsc import Runsc
from executions.sandbox.sandbox import Host, Sandbox, install_tools
from executions.sandbox.spec import Bounds, InputFile, Limits, RunResult, RunSpec
from tests.environment import new_home
from tests.leftovers import leftovers
from tests.made_images import busybox_image, python_image

MIB = 1 << 20


def file(path: str, contents: bytes = b"input") -> InputFile:
    return InputFile(path, lambda: io.BytesIO(contents))


@dataclasses.dataclass
class House:
    """A host with a home of its own."""

    home: Path
    host: Host
    rootfs: Path
    python: Path

    @contextmanager
    def sandbox(
        self,
        *,
        rootfs: Path | None = None,
        inputs: Sequence[InputFile] = (),
        cwd: str = "/",
        network: str = "none",
    ) -> Iterator[Sandbox]:
        sandbox = Sandbox(self.host, f"boxer-{secrets.token_hex(4)}")
        try:
            sandbox.boot(rootfs or self.rootfs, network=network, inputs=inputs, cwd=cwd)
            yield sandbox
        finally:
            sandbox.destroy()

    def run(
        self,
        *cmd: str,
        rootfs: Path | None = None,
        env: Sequence[str] = (),
        image_env: Sequence[str] = (),
        cwd: str = "/",
        inputs: Sequence[InputFile] = (),
        interrupt: int | None = None,
        **limits: float,
    ) -> RunResult:
        with self.sandbox(rootfs=rootfs, inputs=inputs, cwd=cwd) as sandbox:
            spec = run_spec(sandbox, cmd, env=env, cwd=cwd, **limits)
            return sandbox.execute(spec, image_env, interrupt=interrupt)

    def sh(self, script: str, **options: object) -> RunResult:
        return self.run("sh", "-c", script, **options)  # type: ignore[arg-type]

    def py(self, script: str, *arguments: str, **options: object) -> RunResult:
        command = ("python3", "-c", script, *arguments)
        return self.run(*command, rootfs=self.python, **options)  # type: ignore[arg-type]

    def left(self) -> list[str]:
        """What is left on the machine, zombies of ours included."""
        if self.host.hierarchy is not None:
            self.host.hierarchy.remove_group()
        directories = (self.host.directory, self.host.runsc.state)
        files = [str(path) for directory in directories for path in directory.iterdir()]
        zombies = [str(child) for child in psutil.Process().children() if _is_runsc_zombie(child)]
        return [*leftovers([self.home]), *files, *zombies]


def _is_runsc_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE and process.name() in {"exe", "runsc"}
    except psutil.NoSuchProcess:
        return False


def run_spec(
    sandbox: Sandbox,
    cmd: Sequence[str],
    *,
    env: Sequence[str] = (),
    cwd: str = "/",
    **limits: float,
) -> RunSpec:
    chosen: dict[str, float] = {
        "cpu_cores": 2.0,
        "memory_mb": 256,
        "pids_limit": 64,
        "wall_clock_secs": 30,
        "nofile": 256,
    }
    effective = Limits(**(chosen | limits))  # type: ignore[arg-type]
    return RunSpec(sandbox.id, tuple(cmd), tuple(env), cwd, "none", effective)


def make_host(home: Path, *, cgroups: bool = True) -> Host:
    """As executions/host.py makes it of the settings."""
    directory, state = home / "workers", home / "runsc"
    for path in (directory, state):
        path.mkdir(mode=0o700, exist_ok=True)
    init, busybox = shutil.which("catatonit"), shutil.which("busybox")
    assert init is not None
    assert busybox is not None
    install_tools(home / "tools", init=Path(init), busybox=Path(busybox))
    group = f"boxer-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}"
    return Host(
        runsc=Runsc(os.environ.get("BOXER_TEST_RUNSC", "runsc"), "systrap", state),
        hierarchy=Hierarchy.of_host(group) if cgroups else None,
        tools=home / "tools",
        directory=directory,
        bounds=Bounds(
            output_bytes=MIB,
            output_dir_bytes=8 * MIB,
            output_dir_files=64,
            tmp_bytes=16 * MIB,
        ),
        dns_servers=("192.0.2.1",),
        network=network_of(home),
    )


@pytest.fixture(scope="session")
def busybox_rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("busybox-rootfs")
    store = ImageStore(made / "store", size_limit=64 * MIB, pull_timeout=60, tag_ttl=300)
    image = store.import_archive(busybox_image(made / "layout"), "boxer.local/busybox:1")
    return image.rootfs


@pytest.fixture(scope="session")
def python_rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("python-rootfs")
    store = ImageStore(made / "store", size_limit=1 << 30, pull_timeout=120, tag_ttl=300)
    return store.import_archive(python_image(), "boxer.local/python:1").rootfs


def adopt_orphans(adopt: bool) -> None:
    kernel._libc.prctl(kernel.PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0)


@pytest.fixture
def subreaper() -> Iterator[None]:
    """As a worker is: what a sandbox's processes leave becomes ours to reap."""
    adopt_orphans(True)
    yield
    adopt_orphans(False)


@pytest.fixture
def house(busybox_rootfs: Path, python_rootfs: Path, subreaper: None) -> Iterator[House]:
    home = new_home()
    made = House(home, make_host(home), busybox_rootfs, python_rootfs)
    yield made
    assert made.left() == []


@pytest.fixture
def house_without_cgroups(
    busybox_rootfs: Path, python_rootfs: Path, subreaper: None
) -> Iterator[House]:
    home = new_home()
    made = House(home, make_host(home, cgroups=False), busybox_rootfs, python_rootfs)
    yield made
    assert made.left() == []


@pytest.fixture
def exec_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As with a release that the control socket wasn't tried with."""
    monkeypatch.setattr(control, "RELEASES", frozenset())
    runsc._speaks_control.cache_clear()
    yield
    runsc._speaks_control.cache_clear()
