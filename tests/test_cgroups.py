"""Limits of CPU, memory and processes: set for real, refused clearly, and everything in them ended.

Version 2 is tested in a virtual machine, see test_cgroup_v2.py.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from executions.sandbox import kernel
from executions.sandbox.cgroup import Cgroup, CgroupError, Uncontrolled, cpu_quota_us, memory_limit
from executions.sandbox.cgroups import Hierarchy
from executions.sandbox.spec import Limits

MIB = 1 << 20
LINE = "{number} 1 0:{number} / {point} rw,relatime shared:{number} - {kind} {kind} {options}"
GROUP = f"boxer-test-{os.getpid()}"
FORK_BOMB = """
import os, time
while True:
    try: os.fork()
    except OSError: time.sleep(0.001)
"""


def limits(**given: float) -> Limits:
    chosen = {
        "cpu_cores": 1.0,
        "memory_mb": 64,
        "pids_limit": 16,
        "wall_clock_secs": 5,
        "nofile": 64,
    }
    return Limits(**(chosen | given))  # type: ignore[arg-type]


def hierarchy(tmp_path: Path, *mounts: tuple[str, str, str]) -> Hierarchy:
    lines = [
        LINE.format(number=number, point=point, kind=kind, options=options)
        for number, (point, kind, options) in enumerate(mounts)
    ]
    (tmp_path / "mountinfo").write_text("\n".join(["", *lines, "malformed", ""]))
    return Hierarchy.of_host(GROUP, tmp_path / "mountinfo")


def v1(*joined: str) -> list[tuple[str, str, str]]:
    return [(f"/cg/{names}", "cgroup", f"rw,{names}") for names in joined]


def unified(tmp_path: Path, controllers: str) -> tuple[str, str, str]:
    (tmp_path / "cgroup.controllers").write_text(controllers)
    return (str(tmp_path), "cgroup2", "rw,nsdelegate")


# ── What this host mounts ────────────────────────────────────────────────────────────────────────


def test_controllers_of_v1_are_found_each_in_a_hierarchy_of_its_own(tmp_path: Path) -> None:
    found = hierarchy(tmp_path, *v1("cpu", "cpuacct", "memory", "pids", "freezer"))
    assert found.version == 1
    assert [str(path) for path in found.cgroup("x").directories] == [
        f"/cg/{name}/{GROUP}/x" for name in ("cpu", "cpuacct", "memory", "pids", "freezer")
    ]


def test_joined_controllers_share_a_directory(tmp_path: Path) -> None:
    found = hierarchy(tmp_path, *v1("cpu,cpuacct", "memory", "pids"))
    assert len(found.cgroup("x").directories) == 3


def test_v2_alone_is_used(tmp_path: Path) -> None:
    found = hierarchy(tmp_path, unified(tmp_path, "cpuset cpu io memory hugetlb pids rdma"))
    assert found.version == 2
    assert found.cgroup("x").directories == (tmp_path / GROUP / "x",)


def test_a_hybrid_host_s_v1_is_used_whatever_else_is_mounted(tmp_path: Path) -> None:
    found = hierarchy(
        tmp_path,
        unified(tmp_path, ""),
        *v1("cpu,cpuacct", "memory", "pids", "name=systemd"),
        ("/sys/fs/cgroup", "tmpfs", "rw"),
    )
    assert found.version == 1


@pytest.mark.parametrize("missing", ["cpu", "cpuacct", "memory", "pids"])
def test_a_missing_controller_of_v1_is_named_with_the_way_to_do_without(
    tmp_path: Path, missing: str
) -> None:
    names = {"cpu", "cpuacct", "memory", "pids"} - {missing}
    with pytest.raises(CgroupError, match=f"host: {missing} .*BOXER_IGNORE_CGROUPS"):
        hierarchy(tmp_path, *v1(*names), unified(tmp_path, ""))


@pytest.mark.parametrize("missing", ["cpu", "memory", "pids"])
def test_a_missing_controller_of_v2_is_named_with_the_way_to_do_without(
    tmp_path: Path, missing: str
) -> None:
    offered = {"cpu", "memory", "pids", "io"} - {missing}
    with pytest.raises(CgroupError, match=f"host: {missing} .*BOXER_IGNORE_CGROUPS"):
        hierarchy(tmp_path, unified(tmp_path, " ".join(offered)))


def test_a_host_without_cgroups_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(CgroupError, match="BOXER_IGNORE_CGROUPS"):
        hierarchy(tmp_path, ("/", "ext4", "rw"))


def test_mount_points_may_hold_any_bytes(tmp_path: Path) -> None:
    info = tmp_path / "mountinfo"
    info.write_bytes(
        rb"1 0 0:1 / /a\040b\011c\012d\134040\xff rw - ext4 /dev/x rw".replace(b"\\xff", b"\xff")
        + b"\n2 1 0:2 / /with\x0bvertical\xc2\x85 rw - tmpfs none rw,size=1k\n"
    )
    points = [os.fsencode(mount.point) for mount in kernel.mounts(info)]
    assert points == [b"/a b\tc\nd\\040\xff", b"/with\x0bvertical\xc2\x85"]
    assert kernel.mounts(info)[1].options == ("rw", "size=1k")


# ── Arithmetic ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cores", "quota"),
    [(1.0, 100_000), (0.5, 50_000), (2.25, 225_000), (0.01, 1000), (0.001, 1000)],
)
def test_cores_become_microseconds_of_each_period(cores: float, quota: int) -> None:
    assert cpu_quota_us(limits(cpu_cores=cores)) == quota


def test_memory_is_what_the_program_may_use_on_top_of_the_sandbox() -> None:
    baseline = 30 * MIB
    limit = memory_limit(baseline, limits(memory_mb=64))
    assert limit - baseline - 64 * MIB == 25 * MIB
    assert memory_limit(baseline, limits(memory_mb=128)) - limit == 65 * MIB


# ── For real ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    of_host = Hierarchy.of_host(GROUP)
    made = of_host.cgroup("sandbox")
    made.create()
    yield made
    made.kill()
    made.remove()
    of_host.remove_group()
    assert not made.exists()
    assert not any(directory.parent.exists() for directory in made.directories)


def enter(cgroup: Cgroup, script: str) -> "subprocess.Popen[bytes]":
    """A Python process that is in the cgroup before its script begins."""
    doors = repr(cgroup.doors)
    entering = f"for door in {doors}: open(door, 'w').write('0')"
    return subprocess.Popen(
        [sys.executable, "-c", f"{entering}\nprint(flush=True)\n{script}"], stdout=subprocess.PIPE
    )


@pytest.mark.skipif(Hierarchy.of_host(GROUP).version != 1, reason="this host mounts version 2")
def test_limits_are_set_in_the_kernel(cgroup: Cgroup) -> None:
    before = cgroup.memory_bytes()
    cgroup.limit(limits(cpu_cores=0.25, memory_mb=100))
    values = {
        file.name: file.read_text().strip()
        for directory in cgroup.directories
        for pattern in ("cpu.cfs_*_us", "memory.limit_in_bytes", "pids.max")
        for file in directory.glob(pattern)
    }
    assert values["cpu.cfs_quota_us"] == "25000"
    assert values["cpu.cfs_period_us"] == "100000"
    assert values["pids.max"] == "4096"
    expected = memory_limit(before, limits(memory_mb=100))
    assert abs(int(values["memory.limit_in_bytes"]) - expected) <= 4096


@pytest.mark.parametrize("sizes", [(16, 2048, 16), (2048, 16, 2048)])
def test_memory_can_be_raised_and_lowered(cgroup: Cgroup, sizes: tuple[int, ...]) -> None:
    for size in sizes:
        cgroup.limit(limits(memory_mb=size))


def test_usage_is_read_back(cgroup: Cgroup) -> None:
    cgroup.forget_peak()
    script = "x = bytearray(50 << 20); x[::4096] = b'x' * len(x[::4096]); sum(range(10**6))"
    process = enter(cgroup, script)
    process.communicate()
    assert 50 * MIB <= cgroup.peak_bytes() < 100 * MIB
    assert cgroup.memory_bytes() < cgroup.peak_bytes()
    assert 5_000_000 < cgroup.cpu_ns() < 5_000_000_000
    assert cgroup.oom_kills() == 0


def test_running_out_of_memory_is_counted(cgroup: Cgroup) -> None:
    cgroup.limit(limits(memory_mb=16))
    process = enter(cgroup, "x = b'x' * (200 << 20)")
    process.communicate()
    assert process.returncode == -9
    assert cgroup.oom_kills() == 1


def test_cpu_time_is_held_to_the_quota(cgroup: Cgroup) -> None:
    cgroup.limit(limits(cpu_cores=0.3))
    began, used = time.monotonic(), cgroup.cpu_ns()
    process = enter(cgroup, "import time\nend = time.time() + 1.5\nwhile time.time() < end: pass")
    process.communicate()
    share = (cgroup.cpu_ns() - used) / 1e9 / (time.monotonic() - began)
    assert 0.1 < share < 0.4


def test_a_fork_bomb_is_ended_to_the_last_process(cgroup: Cgroup) -> None:
    process = enter(cgroup, FORK_BOMB)
    while len(cgroup.pids()) < 200:
        time.sleep(0.01)
    cgroup.kill()
    assert cgroup.pids() == []
    process.communicate()


def test_a_process_that_ignores_signals_and_left_its_session_is_ended(cgroup: Cgroup) -> None:
    script = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
if os.fork(): os._exit(0)
os.setsid()
time.sleep(60)
"""
    process = enter(cgroup, script)
    process.wait()
    assert len(cgroup.pids()) == 1
    cgroup.kill()
    process.communicate()  # the pipe ends with the last who holds it


def test_only_what_is_in_it_is_ended(cgroup: Cgroup) -> None:
    with subprocess.Popen(["sleep", "60"]) as outside:
        inside = enter(cgroup, "import time; time.sleep(60)")
        assert inside.stdout is not None
        inside.stdout.readline()
        cgroup.kill()
        assert outside.poll() is None
        outside.kill()
        inside.communicate()


def test_killing_removing_and_asking_what_is_not_there_is_nothing() -> None:
    never = Hierarchy.of_host(GROUP).cgroup("never")
    never.kill()
    never.remove()
    assert never.pids() == []
    assert not never.exists()


def test_a_cgroup_that_is_there_already_is_not_taken_over(cgroup: Cgroup) -> None:
    with pytest.raises(CgroupError, match=r"making cgroup .*sandbox: .*exists"):
        Hierarchy.of_host(GROUP).cgroup("sandbox").create()


def test_a_limit_that_the_kernel_refuses_is_named(cgroup: Cgroup) -> None:
    with pytest.raises(CgroupError, match=r"setting .*(cfs_quota_us|cpu\.max) to "):
        cgroup.limit(limits(cpu_cores=1e15))


# ── Without ──────────────────────────────────────────────────────────────────────────────────────


def test_without_cgroups_processes_are_found_by_their_bundle(tmp_path: Path) -> None:
    nested = "import subprocess, sys; subprocess.run(['sleep', '60'])"
    found = Uncontrolled(tmp_path)
    argv = [sys.executable, "-c", nested, f"--bundle={tmp_path}"]
    with (
        subprocess.Popen(argv) as ours,
        subprocess.Popen([sys.executable, "-c", nested, f"--bundle={tmp_path}2"]) as other,
    ):
        deadline = time.monotonic() + 10
        while len(found.pids()) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert ours.pid in found.pids()
        assert len(found.pids()) == 2
        found.kill()
        assert found.pids() == []
        assert other.poll() is None
        Uncontrolled(Path(f"{tmp_path}2")).kill()
