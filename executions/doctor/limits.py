"""Each limit of a run bites: a program tries to pass it."""

from executions.doctor.findings import Broken, Skipped
from executions.doctor.ward import BOUNDS, LIMITS, Ward
from executions.sandbox.spec import End, RunResult

CPU_SHARE = 0.25
CPU_SECS = 2
CPU_SLACK = 1.5
"""A quota is of periods of 100 ms, and what is over at the end of one is paid back in the next."""
SLACK_BYTES = 64 << 10

# Opens files until it can't; a redirection that fails ends the shell, so it is a shell of its own.
_NOFILE = """
(i=3; while [ $i -lt 200 ]; do eval "exec $i</dev/null" || exit; echo $i; i=$((i+1)); done) \
2>/dev/null >/tmp/opened
"""
# Each starts a process that stays; the shell ends with the first that it can't start.
_PIDS = """
(i=0; while [ $i -lt 60 ]; do sleep 30 >/dev/null 2>&1 & i=$((i+1)); echo $i; done) \
2>/dev/null >/tmp/started
"""


def numbers(result: RunResult) -> list[int]:
    """What a script of ours printed. Raises Broken where it didn't get there."""
    words = result.stdout.split()
    if result.end is not End.EXITED or not all(word.isdigit() for word in words) or not words:
        said = (result.stdout + result.stderr).decode(errors="replace").strip()[-200:]
        raise Broken(f"the program ended otherwise ({result.end}): {said or result.detail}")
    return [int(word) for word in words]


def nofile(ward: Ward) -> str:
    [opened] = numbers(ward.run(f"{_NOFILE} wc -l </tmp/opened"))
    if not 0 < opened <= LIMITS.nofile:
        raise Broken(f"{opened} files were opened where {LIMITS.nofile} may be")
    return f"{opened} more files were opened of {LIMITS.nofile} allowed in all"


def pids(ward: Ward) -> str:
    # At the limit nothing can be started any more, so what counts them is the shell itself.
    count = "last=0; while read -r i; do last=$i; done </tmp/started; echo $last"
    [started] = numbers(ward.run(f"{_PIDS} {count}"))
    if not 0 < started <= LIMITS.pids_limit:
        raise Broken(f"{started} processes were started where {LIMITS.pids_limit} may be")
    return f"{started} more processes were started of {LIMITS.pids_limit} allowed in all"


def _filled(ward: Ward, directory: str, bound: int) -> str:
    megabytes = 4 * bound // (64 << 10)
    script = f"dd if=/dev/zero of={directory}/fill bs=64k count={megabytes} 2>/dev/null"
    [size] = numbers(ward.run(f"{script}; wc -c <{directory}/fill"))
    if not 0 < size <= bound + SLACK_BYTES:
        raise Broken(f"{size} bytes were written where {bound} fit")
    return f"{size} bytes were written where {bound} fit"


def tmp(ward: Ward) -> str:
    return _filled(ward, "/tmp", BOUNDS.tmp_bytes)  # noqa: S108 (of the sandbox)


def shm(ward: Ward) -> str:
    return _filled(ward, "/dev/shm", BOUNDS.tmp_bytes)  # noqa: S108 (of the sandbox)


def output_directory(ward: Ward) -> str:
    return _filled(ward, "/output", BOUNDS.output_dir_bytes)


def output_files(ward: Ward) -> str:
    bound = BOUNDS.output_dir_files
    script = (
        f"i=0; while [ $i -lt {4 * bound} ] && touch /output/$i 2>/dev/null; do i=$((i+1)); done"
    )
    [made] = numbers(ward.run(f"{script}; echo $i"))
    if not 0 < made <= bound:
        raise Broken(f"{made} files were made in /output where {bound} may be")
    return f"{made} files were made where {bound} may be"


def memory(ward: Ward) -> str:
    _needs_cgroups(ward)
    result = ward.run("dd if=/dev/zero of=/dev/null bs=512M count=1")
    if result.end is not End.OUT_OF_MEMORY:
        raise Broken(f"512 MiB were used where {LIMITS.memory_mb} MiB may be ({result.end})")
    return f"a program that wanted 512 MiB of {LIMITS.memory_mb} MiB was ended"


def cpu(ward: Ward) -> str:
    """The wall clock ends it, so a busy loop shows two limits."""
    _needs_cgroups(ward)
    result = ward.run("while :; do :; done", cpu_cores=CPU_SHARE, wall_clock_secs=CPU_SECS)
    most = round(CPU_SHARE * result.wall_ms * CPU_SLACK)
    if result.cpu_ms is None or result.cpu_ms > most:
        raise Broken(f"{result.cpu_ms} ms of CPU were used where about {most} ms may be")
    return f"{result.cpu_ms} ms of CPU in {result.wall_ms} ms with {CPU_SHARE} cores"


def wall_clock(ward: Ward) -> str:
    result = ward.run("sleep 60", wall_clock_secs=1)
    if result.end is not End.TIMED_OUT:
        raise Broken(f"a program that sleeps for a minute wasn't ended after 1 s ({result.end})")
    return f"a program that sleeps for a minute was ended after {result.wall_ms} ms"


def output(ward: Ward) -> str:
    result = ward.run("yes")
    if result.end is not End.OUTPUT_LIMIT or len(result.stdout) > BOUNDS.output_bytes:
        raise Broken(f"an endless writer wasn't stopped ({result.end})")
    return f"an endless writer was stopped at {len(result.stdout)} bytes"


def _needs_cgroups(ward: Ward) -> None:
    if ward.host.hierarchy is None:
        raise Skipped("given up by BOXER_IGNORE_CGROUPS")
