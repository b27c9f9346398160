"""Nothing is left of a sandbox: whatever failed, whoever died, however often it is cleared."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from executions.sandbox import kernel
from executions.sandbox.cgroup import Cgroup, CgroupError
from executions.sandbox.runsc import Runsc
from executions.sandbox.sandbox import Sandbox, clear, install_tools
from executions.sandbox.spec import InputFile, SandboxError
from tests.fixtures_sandbox import House, adopt_orphans, file, make_host, run_spec
from tests.leftovers import leftovers

WORKER = """
import os, sys, time
from pathlib import Path
from executions.sandbox import kernel
from executions.sandbox.sandbox import Sandbox
from tests.fixtures_sandbox import make_host, run_spec, file
home, rootfs, when, cgroups = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "1"
kernel.become_subreaper()
sandbox = Sandbox(make_host(home, cgroups=cgroups), "boxer-lost")
if when == "booting":
    print("soon", flush=True)
sandbox.boot(rootfs, network="none", inputs=[file("tmp/a"), file("a/b")], cwd="/c")
if when == "booted":
    print("soon", flush=True)
    time.sleep(60)
if when == "killed":
    sandbox._cgroup.kill()
    print("soon", flush=True)
    time.sleep(60)
print("soon", flush=True)
sandbox.execute(run_spec(sandbox, ["sh", "-c", "setsid sleep 99 & sleep 99"]), ())
"""


def lose_worker(house: House, when: str, delay: float = 0.0) -> None:
    """A worker that is killed in the middle."""
    cgroups = "0" if house.host.hierarchy is None else "1"
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(house.home), str(house.rootfs), when, cgroups],
        stdout=subprocess.PIPE,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"soon\n"
    time.sleep(delay)
    adopt_orphans(False)  # what it leaves is init's, as after the death of a whole service
    worker.send_signal(signal.SIGKILL)
    worker.communicate()


def clear_until_clean(house: House) -> None:
    """Again and again, as the keeper does: what was just forked may only be becoming runsc."""
    deadline = time.monotonic() + 10
    while True:
        clear(house.host)
        if not house.left() or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert house.left() == []


@pytest.mark.parametrize("when", ["booted", "killed", "executing"])
def test_a_killed_worker_s_sandbox_is_cleared_by_another(house: House, when: str) -> None:
    lose_worker(house, when, 0.3)
    assert leftovers([house.home])
    clear(house.host)
    assert house.left() == []
    clear(house.host)


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.15, 0.2])
def test_a_worker_that_is_killed_while_it_boots_leaves_what_can_be_cleared(
    house: House, delay: float
) -> None:
    lose_worker(house, "booting", delay)
    clear_until_clean(house)


@pytest.mark.parametrize("delay", [0.05, 0.1, 0.2])
def test_the_same_without_cgroups(house_without_cgroups: House, delay: float) -> None:
    house = house_without_cgroups
    lose_worker(house, "booting", delay)
    clear_until_clean(house)


def test_clearing_where_nothing_is_or_ever_was_is_nothing(house: House) -> None:
    clear(house.host)
    clear(dataclasses.replace(house.host, directory=house.home / "never"))


def test_one_that_cannot_be_destroyed_does_not_keep_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_worker(house, "booted")
    (house.host.directory / "boxer-a-file").touch()  # sorts first, and is no sandbox
    with pytest.raises(SandboxError, match="destroying sandbox boxer-a-file"):
        clear(house.host)
    (house.host.directory / "boxer-a-file").unlink()
    assert house.left() == []


def test_destroying_twice_or_before_booting_is_nothing(house: House) -> None:
    with house.sandbox() as sandbox:
        sandbox.destroy()
        sandbox.destroy()
    Sandbox(house.host, "boxer-never").destroy()


def test_a_sandbox_that_is_there_already_is_an_error(house: House) -> None:
    with house.sandbox() as sandbox:
        twin = Sandbox(house.host, sandbox.id)
        with pytest.raises(SandboxError, match="exists"):
            twin.boot(house.rootfs, network="none", inputs=(), cwd="/")


def failing() -> InputFile:
    def away() -> None:
        raise OSError("the storage is away")

    return InputFile("late", away)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([file("a"), file("bin")], "'bin': the image has a directory there"),
        ([file("a/b"), file("proc/x")], "/proc is reserved"),
        ([file("x" * 300)], "too long for the name of a file"),
    ],
)
def test_inputs_that_cannot_be_placed_are_named(
    house: House, inputs: list[InputFile], message: str
) -> None:
    with pytest.raises(SandboxError, match=message), house.sandbox(inputs=inputs):
        pass


def test_a_store_that_fails_while_inputs_are_read_leaves_nothing(house: House) -> None:
    with (
        pytest.raises(SandboxError, match="the storage is away"),
        house.sandbox(inputs=[file("a"), failing()]),
    ):
        pass


def test_an_image_that_is_gone_is_an_error(house: House, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="no-image"), house.sandbox(rootfs=tmp_path / "no-image"):
        pass


def fake_runsc(house: House, script: str) -> None:
    """What can't be made to happen on demand: runsc that fails or hangs half-way."""
    path = house.home / "runsc.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    house.host = dataclasses.replace(
        house.host, runsc=dataclasses.replace(house.host.runsc, binary=str(path))
    )


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo one; echo two >&2; echo three >&2; exit 3", r"runsc exited 3: two \| three"),
        ("exit 1", "runsc exited 1: it said nothing"),
        ("yes trouble >&2 & sleep 1; kill $!; exit 1", r"trouble \| trouble"),
        ("sleep 99 & exit 9", "runsc exited 9"),
        ("exit 0", "pid"),
    ],
)
def test_a_boot_that_fails_is_an_error_with_runsc_s_last_words(
    house: House, script: str, message: str
) -> None:
    fake_runsc(house, script)
    with pytest.raises(SandboxError, match=message) as caught, house.sandbox():
        pass
    assert len(str(caught.value)) < 2000


def test_a_boot_that_hangs_is_given_up_with_all_that_it_started(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executions.sandbox.runsc.BOOT_TIMEOUT_SECS", 0.5)
    fake_runsc(house, "setsid sleep 99 & sleep 99 & sleep 99")
    with pytest.raises(SandboxError, match=r"timed out after 0.5 seconds"), house.sandbox():
        pass


def test_runsc_that_is_killed_in_the_middle_of_a_real_boot_leaves_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off = 0
    for secs in (0.01, 0.03, 0.06, 0.09, 0.12):
        monkeypatch.setattr("executions.sandbox.runsc.BOOT_TIMEOUT_SECS", secs)
        try:
            with house.sandbox():
                pass  # this machine boots one faster than that
        except SandboxError as error:
            assert "timed out" in str(error) or "opening a shell" in str(error)  # noqa: PT017
            cut_off += 1
        assert house.left() == []
    assert cut_off >= 2


def test_a_missing_runsc_is_named(house: House) -> None:
    runsc = dataclasses.replace(house.host.runsc, binary="/no/such/runsc")
    house.host = dataclasses.replace(house.host, runsc=runsc)
    with pytest.raises(SandboxError, match="/no/such/runsc"), house.sandbox():
        pass
    with pytest.raises(SandboxError, match="/no/such/runsc"):
        runsc.version()


@pytest.mark.parametrize("script", ["exit 0", "echo version", "sleep 99", "yes"])
def test_a_version_that_runsc_does_not_tell_is_an_error_in_time(
    house: House, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executions.sandbox.runsc.VERSION_TIMEOUT_SECS", 0.3)
    fake_runsc(house, f"exec {script}" if " " in script else script)
    with pytest.raises(SandboxError, match=r"--version"):
        house.host.runsc.version()


def test_the_version_is_told() -> None:
    assert "20" in Runsc("runsc", "systrap", Path("/nonexistent")).version()


def test_a_limit_that_cannot_be_set_refuses_the_run(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with house.sandbox() as sandbox, pytest.raises(CgroupError, match="setting"):
        sandbox.execute(run_spec(sandbox, ["true"], cpu_cores=1e15), ())


def test_what_does_not_end_in_time_is_an_error_and_is_found_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = Sandbox(house.host, "boxer-stuck")
    sandbox.boot(house.rootfs, network="none", inputs=(), cwd="/")
    stuck = sandbox._cgroup.pids()
    with monkeypatch.context() as patched:
        patched.setattr(Cgroup, "pids", lambda _: stuck)
        with pytest.raises(CgroupError, match=r"processes .* don't end"):
            sandbox._cgroup.kill(timeout=0.2)
    assert kernel.mounts_below(house.host.directory)
    clear(house.host)


def test_tools_are_installed_once_and_renewed_when_they_changed(tmp_path: Path) -> None:
    init, busybox = tmp_path / "init", tmp_path / "busybox"
    init.write_bytes(b"init 1")
    busybox.write_bytes(b"busybox")
    tools = tmp_path / "tools"
    before = os.umask(0o077)
    try:
        install_tools(tools, init=init, busybox=busybox)
        first = {path.name: path.stat().st_ino for path in tools.iterdir()}
        install_tools(tools, init=init, busybox=busybox)
        assert {path.name: path.stat().st_ino for path in tools.iterdir()} == first
        init.write_bytes(b"init 2")
        install_tools(tools, init=init, busybox=busybox)
    finally:
        os.umask(before)
    assert sorted(first) == ["env", "init", "run", "sh"]
    assert (tools / "init").read_bytes() == b"init 2"
    assert {path.stat().st_mode & 0o7777 for path in [tools, *tools.iterdir()]} == {0o755, 0o555}


def test_a_second_host_of_the_same_home_is_no_trouble(house: House) -> None:
    """As every worker process makes one."""
    other = dataclasses.replace(house, host=make_host(house.home))
    assert other.sh("echo one").stdout + house.sh("echo two").stdout == b"one\ntwo\n"


def test_descriptors_do_not_add_up(house: House) -> None:
    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    house.sh("true")
    before = descriptors()
    for _ in range(3):
        house.sh("exit 1", inputs=[file("a"), file("tmp/a")])
    with pytest.raises(SandboxError), house.sandbox(inputs=[file("bin")]):
        pass
    assert descriptors() == before
