"""Limits hold for all of a run and are what the program gets."""

import dataclasses
import json

import pytest

from executions.sandbox.spec import End
from tests.fixtures_sandbox import MIB, House, run_spec

ALLOCATE = """
import sys
size = int(sys.argv[1]) << 20
memory = bytearray(size)
for page in range(0, size, 4096): memory[page] = 1
print("ok")
"""


@pytest.mark.parametrize("memory_mb", [16, 64, 256])
def test_a_program_may_use_its_memory_and_not_much_more(house: House, memory_mb: int) -> None:
    within = house.py(ALLOCATE, str(memory_mb - 8), memory_mb=memory_mb)
    assert (within.end, within.stdout) == (End.EXITED, b"ok\n")
    beyond = house.py(ALLOCATE, str(memory_mb + 24), memory_mb=memory_mb)
    assert (beyond.end, beyond.stdout) == (End.OUT_OF_MEMORY, b"")


def test_a_limit_above_what_booting_takes_is_the_run_s_own(house: House) -> None:
    assert house.py(ALLOCATE, "700", memory_mb=768).stdout == b"ok\n"


def test_the_least_memory_that_can_be_asked_for_starts_a_program(house: House) -> None:
    assert house.run("echo", "hi", memory_mb=1).stdout == b"hi\n"
    assert house.py("print('hi')", memory_mb=1).stdout == b"hi\n"


def test_processes_together_get_the_cores_that_were_asked_for(house: House) -> None:
    script = """
import os, time
end = time.time() + 2
for _ in range(3):
    if not os.fork(): break
while time.time() < end: pass
"""
    result = house.py(script, cpu_cores=0.5)
    assert result.cpu_ms is not None
    assert 0.3 < result.cpu_ms / result.wall_ms < 0.65


@pytest.mark.parametrize("limit", [1, 8, 64])
def test_processes_and_threads_are_counted_and_the_next_fork_fails(
    house: House, limit: int
) -> None:
    script = """
import errno, os, time
made = 0
try:
    while True:
        if not os.fork(): time.sleep(60)
        made += 1
except OSError as error: print(made, errno.errorcode[error.errno])
"""
    result = house.py(script, pids_limit=limit)
    assert result.stdout.decode().split() == [str(limit - 1), "EAGAIN"]


def test_threads_count_as_well(house: House) -> None:
    script = """
import threading, time
made = 0
try:
    while True:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); made += 1
except RuntimeError: print(made, flush=True); __import__("os")._exit(0)
"""
    result = house.py(script, pids_limit=10)
    assert int(result.stdout) == 9


def test_a_sandbox_survives_a_fork_bomb(house: House) -> None:
    script = """
import os, time
end = time.time() + 3
for _ in range(5):
    try: os.fork()
    except OSError: pass
while time.time() < end:
    try: os.fork() or os._exit(0)
    except OSError: time.sleep(0.01)
"""
    result = house.py(script, pids_limit=64, wall_clock_secs=10)
    assert (result.end, result.exit_code) == (End.EXITED, 0)
    result = house.sh("b() { b | b & }; b; sleep 99", pids_limit=1024, wall_clock_secs=3)
    assert result.end in {End.TIMED_OUT, End.OUT_OF_MEMORY}


@pytest.mark.parametrize("limit", [16, 256])
def test_open_files_are_bounded_and_the_bound_cannot_be_raised(house: House, limit: int) -> None:
    script = """
import errno, json, os, resource
opened = 0
try:
    while True: os.dup(0); opened += 1
except OSError as error: told = errno.errorcode[error.errno]
os.closerange(3, 100)
def raised(what, value):
    try: resource.setrlimit(what, (value, value)); return True
    except (OSError, ValueError): return False
print(json.dumps({
    "opened": opened + 3, "told": told,
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "nproc": resource.getrlimit(resource.RLIMIT_NPROC),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "raised": [raised(resource.RLIMIT_NOFILE, 4096), raised(resource.RLIMIT_NPROC, 4096)],
}))
"""
    seen = json.loads(house.py(script, nofile=limit, pids_limit=5).stdout)
    assert (seen["opened"], seen["told"]) == (limit, "EMFILE")
    assert (seen["nofile"], seen["nproc"], seen["core"]) == ([limit] * 2, [5, 5], [0, 0])
    assert seen["raised"] == [False, False]


def test_writable_places_are_bounded_by_the_kernel(house: House) -> None:
    bounds = house.host.bounds
    script = """
for place in /tmp /dev/shm /output; do
    dd if=/dev/zero of=$place/big bs=64k count=1000 2>/dev/null; wc -c < $place/big; rm $place/big
done
i=0; while touch /output/$i 2>/dev/null; do i=$((i+1)); done; echo $i
mkdir /output/d 2>/dev/null || echo full
ln /output/0 /output/link 2>/dev/null || echo full
"""
    told = house.sh(script).stdout.split()
    sizes = [int(size) for size in told[:3]]
    assert sizes == [bounds.tmp_bytes, bounds.tmp_bytes, bounds.output_dir_bytes]
    assert told[3:] == [str(bounds.output_dir_files).encode(), b"full", b"full"]


def test_a_sparse_file_in_output_is_refused_or_left_out(house: House) -> None:
    with house.sandbox(rootfs=house.python) as sandbox:
        script = "f = open('/output/sparse', 'wb'); f.truncate(1 << 40); open('/output/x', 'w')"
        sandbox.execute(run_spec(sandbox, ["python3", "-c", script]), ())
        sandbox.kill()
        outputs = sandbox.outputs()
        assert [(file.path, file.size) for file in outputs.files()] == [("x", 0)]
        assert [entry["path"] for entry in outputs.left_out] == ["sparse"]


@pytest.mark.parametrize("end", [End.TIMED_OUT, End.OUTPUT_LIMIT, End.OUT_OF_MEMORY, End.SIGNALLED])
def test_what_a_run_had_written_is_collected_however_it_ended(house: House, end: End) -> None:
    last = {
        End.TIMED_OUT: "time.sleep(99)",
        End.OUTPUT_LIMIT: "\nwhile True: print('x' * 4096)",
        End.OUT_OF_MEMORY: "x = b'x' * (1 << 30)",
        End.SIGNALLED: "os.kill(os.getpid(), 9)",
    }[end]
    script = f"""
import mmap, os, time
open("/output/closed", "wb").write(b"c" * 100_000)
still_open = open("/output/open", "wb", buffering=0); still_open.write(b"o" * 100_000)
mapped = open("/output/mapped", "wb+"); mapped.truncate(100_000)
m = mmap.mmap(mapped.fileno(), 0); m[:] = b"m" * 100_000
{last}
"""
    with house.sandbox(rootfs=house.python) as sandbox:
        spec = run_spec(sandbox, ["python3", "-c", script], wall_clock_secs=2, memory_mb=128)
        assert sandbox.execute(spec, ()).end is end
        sandbox.kill()
        found = {file.path: file.contents.read() for file in sandbox.outputs().files()}
    assert found == {name: name[:1].encode() * 100_000 for name in ("closed", "open", "mapped")}


def test_more_cores_than_the_host_has_are_no_error(house: House) -> None:
    assert house.run("echo", "hi", cpu_cores=64.0).stdout == b"hi\n"


def test_without_cgroups_runs_work_and_the_wall_clock_ends_them(
    house_without_cgroups: House,
) -> None:
    house = house_without_cgroups
    result = house.sh("echo hi; exit 3")
    assert (result.end, result.exit_code, result.stdout) == (End.EXITED, 3, b"hi\n")
    assert (result.cpu_ms, result.max_memory_bytes) == (None, None)
    assert house.left() == []
    result = house.sh("setsid sleep 99 & while :; do :; done", wall_clock_secs=1)
    assert result.end is End.TIMED_OUT
    assert house.left() == []


def test_a_large_output_directory_needs_memory_for_what_it_holds(house: House) -> None:
    bounds = dataclasses.replace(house.host.bounds, output_dir_bytes=1 << 30)
    house.host = dataclasses.replace(house.host, bounds=bounds)
    result = house.sh("dd if=/dev/zero of=/output/x bs=1M count=32 && echo ok", memory_mb=64)
    assert (result.end, result.stdout) == (End.EXITED, b"ok\n")
    assert result.max_memory_bytes is not None
    assert result.max_memory_bytes > 32 * MIB
