"""Runs inside the virtual machine: uses the sandbox library on cgroup v2, prints what it saw.

Each question is a function; its answer is a line of JSON. Nothing is judged here.
"""

import contextlib
import ctypes
import faulthandler
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from executions.sandbox import kernel
from executions.sandbox.cgroup import Cgroup, CgroupError
from executions.sandbox.cgroups import Hierarchy
from executions.sandbox.network.home import network_of
from executions.sandbox.runsc import Runsc
from executions.sandbox.sandbox import Host, Sandbox, install_tools
from executions.sandbox.spec import Bounds, Limits, RunResult, RunSpec

CGROUPS = Path("/sys/fs/cgroup")
HOME = Path("/boxer-home")
GROUP = "boxer-first"
IMAGE = HOME / "image"
MIB = 1 << 20
QUESTION_SECS = 60
"""Longer than a boot may take; each takes less than ten."""
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC_PRIVATE = 0x4000 | 0x40000

Answer = dict[str, Any]


# ── The machine ──────────────────────────────────────────────────────────────────────────────────


def prepare() -> None:
    for name in ("sandboxes", "runsc", "image/bin", "image/tmp"):
        (HOME / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", IMAGE / "bin/busybox")
    for applet in ("sh", "dd", "sleep", "true", "cat"):
        (IMAGE / "bin" / applet).symlink_to("busybox")
    install_tools(HOME / "tools", init=Path("/bin/catatonit"), busybox=Path("/bin/busybox"))
    kernel.become_subreaper()


def host() -> Host:
    return Host(
        runsc=Runsc("runsc", "systrap", HOME / "runsc"),
        hierarchy=Hierarchy.of_host(GROUP),
        tools=HOME / "tools",
        directory=HOME / "sandboxes",
        bounds=Bounds(output_bytes=MIB, output_dir_bytes=MIB, output_dir_files=10, tmp_bytes=MIB),
        dns_servers=(),
        network=network_of(HOME),
    )


def run(
    name: str, script: str, *, cpu: float = 2, memory: int = 64, secs: int = 30, files: str = ""
) -> Answer:
    """One run from boot to destruction; `files` of its cgroup are read before it is destroyed."""
    sandbox = Sandbox(host(), name)
    group = CGROUPS / GROUP / name
    limits = Limits(cpu, memory_mb=memory, pids_limit=32, wall_clock_secs=secs, nofile=1024)
    spec = RunSpec(name, ("sh", "-c", script), (), "/", "none", limits)
    try:
        sandbox.boot(IMAGE, network="none", inputs=(), cwd="/")
        booted = {"memory": number(group / "memory.current"), "pids": read(group / "cgroup.procs")}
        result = sandbox.execute(spec, ())
        seen = {file: read(group / file) for file in files.split()}
    finally:
        sandbox.destroy()
    return {**told(result), "booted": booted, "files": seen, "left": left(name)}


def told(result: RunResult) -> Answer:
    return {
        "end": str(result.end),
        "exit_code": result.exit_code,
        "signal": result.signal,
        "stdout": result.stdout.decode(),
        "stderr": result.stderr.decode(),
        "wall_ms": result.wall_ms,
        "cpu_ms": result.cpu_ms,
        "max_memory_bytes": result.max_memory_bytes,
        "detail": result.detail,
    }


def left(name: str) -> list[str]:
    """What a destroyed sandbox has left: cgroup, files, mounts, children dead or alive."""
    found = [str(path) for path in (CGROUPS / GROUP / name, *HOME.glob(f"*/*{name}*"))]
    found = [path for path in found if os.path.lexists(path)]
    found += [str(point) for point in kernel.mounts_below(HOME)]
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return found + [Path(f"/proc/{pid}/stat").read_text().strip() for pid in children]


def read(file: Path) -> str:
    return file.read_text().strip()


def number(file: Path) -> int:
    return int(read(file))


# ── Questions: a run and its limits ──────────────────────────────────────────────────────────────


def a_run() -> Answer:
    before = read(CGROUPS / "cgroup.subtree_control")
    files = "pids.max memory.max memory.swap.max memory.oom.group cpu.max"
    answer = run("hello", "echo hello; echo oops >&2; exit 3", cpu=1.5, files=files)
    return {
        "version": host().hierarchy.version if host().hierarchy else 0,  # type: ignore[union-attr]
        "offered": read(CGROUPS / "cgroup.controllers"),
        "before": before,
        "root": read(CGROUPS / "cgroup.subtree_control"),
        "group": read(CGROUPS / GROUP / "cgroup.subtree_control"),
        **answer,
    }


def memory_within_the_limit() -> Answer:
    return run("within", f"dd if=/dev/zero of=/dev/null bs={40 * MIB} count=2 2>&1; echo done")


def memory_beyond_the_limit() -> Answer:
    script = f"dd if=/dev/zero of=/dev/null bs={300 * MIB} count=1; echo survived"
    return run("beyond", script, files="memory.events")


def a_program_that_ends_itself() -> Answer:
    return run("itself", "kill -9 $$")


def a_quarter_of_a_core() -> Answer:
    return run("quarter", "while :; do :; done", cpu=0.25, secs=3, files="cpu.stat cpu.max")


# ── Questions: the cgroup by itself ──────────────────────────────────────────────────────────────


def fork_bomb() -> Answer:
    """Outside of gVisor: what is killed one by one would be back before the next look."""
    cgroup = Hierarchy.of_host(GROUP).cgroup("bomb")
    cgroup.create()
    group = CGROUPS / GROUP / "bomb"
    (group / "pids.max").write_text("100")
    script = 'echo 0 > "$1"; f() { f & f & sleep 1; }; while :; do f; done'
    argv = ["busybox", "sh", "-c", script, "bomb", *cgroup.doors]
    bomb = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while (most := number(group / "pids.current")) < 90 and time.monotonic() < deadline:
        time.sleep(0.01)
    began = time.monotonic()
    cgroup.kill(timeout=10)
    took = time.monotonic() - began
    answer = {"most": most, "secs": took, "events": read(group / "cgroup.events")}
    cgroup.remove()
    bomb.wait()  # Reaped already; Popen wants to know.
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # Those that ended by themselves.
            pass
    return {**answer, "left": left("bomb")}


def two_homes() -> Answer:
    first, second = Hierarchy.of_host(GROUP), Hierarchy.of_host("boxer-second")
    ours, theirs = first.cgroup("mine"), second.cgroup("yours")
    ours.create()
    theirs.create()
    answer: Answer = {"groups": groups()}
    second.remove_group()
    answer["in_use_stays"] = theirs.exists()
    theirs.remove()
    second.remove_group()
    answer["second_is_gone"] = not (CGROUPS / "boxer-second").exists()
    answer["ours_stays"] = ours.exists() and bool(read(ours.directories[0] / "memory.max"))
    ours.remove()
    first.remove_group()
    return {**answer, "left": groups()}


def groups() -> list[str]:
    return sorted(str(path.relative_to(CGROUPS)) for path in CGROUPS.glob("boxer-*/**"))


def a_limit_that_cannot_be_set() -> Answer:
    cgroup = Hierarchy.of_host(GROUP).cgroup("odd")
    cgroup.create()
    try:
        return error_of(lambda: cgroup.limit(Limits(1e12, 64, 32, 10, 1024)))
    finally:
        cgroup.remove()


# ── Questions: Boxer in a container, which sees a cgroup of the host as its root ─────────────────


def container_without_memory() -> Answer:
    def inside() -> Answer:
        return error_of(lambda: Hierarchy.of_host(GROUP))

    return in_container("+cpu +pids", inside)


def container_with_processes_in_its_root() -> Answer:
    def inside() -> Answer:
        cgroup = Hierarchy.of_host(GROUP).cgroup("nested")
        cgroup.create()
        answer = use(cgroup)
        cgroup.remove()
        Hierarchy.of_host(GROUP).remove_group()
        return {**answer, "own": read(Path("/proc/self/cgroup"))}

    return in_container("+cpu +memory +pids", inside)


def read_only_cgroups() -> Answer:
    """As a container without privileges gets them."""

    def inside() -> Answer:
        kernel.mount("", CGROUPS, "", MS_REMOUNT | MS_BIND | kernel.MS_RDONLY, "")
        return error_of(Hierarchy.of_host(GROUP).cgroup("nested").create)

    return in_container("+cpu +memory +pids", inside)


def use(cgroup: Cgroup) -> Answer:
    script = 'echo 0 > "$1"; while :; do :; done'
    busy = subprocess.Popen(["busybox", "sh", "-c", script, "busy", *cgroup.doors])
    cgroup.limit(Limits(0.5, 64, 32, 10, 1024))
    time.sleep(0.5)
    answer = {"pids": cgroup.pids() == [busy.pid], "cpu_ns": cgroup.cpu_ns()}
    cgroup.kill()
    busy.wait()
    return {**answer, "killed": cgroup.pids()}


def in_container(controllers: str, inside: Callable[[], Answer]) -> Answer:
    """What `inside` answers in a child whose cgroup is the root of all that it sees."""
    (CGROUPS / "cgroup.subtree_control").write_text("+cpu +memory +pids")
    outer = CGROUPS / "container"
    (outer / "scope").mkdir(parents=True)
    try:
        (outer / "cgroup.subtree_control").write_text(controllers)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                (outer / "scope/cgroup.procs").write_text("0")
                os.write(writer, json.dumps(_contained(inside)).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        answer: Answer = json.loads(said)
        return answer
    finally:
        for directory in (*sorted((outer / "scope").glob("*/")), outer / "scope", outer):
            directory.rmdir()


def _contained(inside: Callable[[], Answer]) -> Answer:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWCGROUP):
        return {"error": f"unshare: {os.strerror(ctypes.get_errno())}"}
    kernel.mount("", Path("/"), "", MS_REC_PRIVATE, "")
    kernel.unmount(CGROUPS)
    kernel.mount("cgroup2", CGROUPS, "cgroup2", 0, "")
    return _answered(inside)


def error_of(action: Callable[[], object]) -> Answer:
    try:
        action()
    except CgroupError as error:
        return {"refused": str(error)}
    return {"refused": ""}


# ── Asking ───────────────────────────────────────────────────────────────────────────────────────

QUESTIONS: tuple[Callable[[], Answer], ...] = (
    a_run,
    memory_within_the_limit,
    memory_beyond_the_limit,
    a_program_that_ends_itself,
    a_quarter_of_a_core,
    fork_bomb,
    two_homes,
    a_limit_that_cannot_be_set,
    container_without_memory,
    container_with_processes_in_its_root,
    read_only_cgroups,
)


def _answered(question: Callable[[], Answer]) -> Answer:
    try:
        return question()
    except Exception:  # noqa: BLE001 (it is the answer)
        return {"error": traceback.format_exc()}


def answers() -> Iterator[Answer]:
    for question in QUESTIONS:
        began = time.monotonic()
        # Where it hangs is told on the console; the machine ends.
        faulthandler.dump_traceback_later(QUESTION_SECS, exit=True)
        sys.stderr.write(f"{question.__name__}\n")
        answer = _answered(question)
        yield {"question": question.__name__, **answer, "took": time.monotonic() - began}


if __name__ == "__main__":
    sys.stderr.write("in_guest begins\n")
    prepare()
    for answer in answers():
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    sys.stdout.write("end\n")
