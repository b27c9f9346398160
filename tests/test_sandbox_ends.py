"""How a run ends: what the program did, told apart from everything that we or its limits did."""

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from executions.sandbox.sandbox import Sandbox
from executions.sandbox.spec import End, RunResult, SandboxError
from tests.fixtures_sandbox import MIB, House, run_spec


@pytest.mark.parametrize("code", [0, 1, 42, 125, 126, 127, 128, 145, 200, 255])
def test_an_exit_code_is_the_program_s(house: House, code: int) -> None:
    result = house.sh(f"exit {code}")
    assert (result.end, result.exit_code, result.signal) == (End.EXITED, code, None)
    assert result.detail == ""


@pytest.mark.parametrize(("name", "number"), [("SEGV", 11), ("KILL", 9), ("TERM", 15), ("ABRT", 6)])
def test_a_signal_is_told_with_the_code_that_a_shell_gives(
    house: House, name: str, number: int
) -> None:
    result = house.sh(f"echo before; kill -{name} $$; sleep 9")
    assert (result.end, result.exit_code, result.signal) == (End.SIGNALLED, 128 + number, number)
    assert (result.stdout, result.stderr) == (b"before\n", b"")


def test_exit_137_by_itself_is_neither_out_of_memory_nor_a_signal(house: House) -> None:
    """`runsc exec`, which other releases get, can't tell the second."""
    result = house.sh("exit 137")
    known = house.host.runsc.speaks_control()
    assert result.end is (End.EXITED if known else End.SIGNALLED)
    assert result.exit_code == 137


def test_out_of_memory_is_told_and_what_was_printed_is_kept(house: House) -> None:
    result = house.py("import sys; print('so far', flush=True); x = b'x' * (1 << 30)", memory_mb=64)
    assert (result.end, result.exit_code, result.signal) == (End.OUT_OF_MEMORY, 137, 9)
    assert (result.stdout, result.stderr) == (b"so far\n", b"")


@pytest.mark.parametrize("where", ["/tmp", "/dev/shm", "/output"])
def test_files_in_memory_count_as_memory(house: House, where: str) -> None:
    bounds = dataclasses.replace(house.host.bounds, tmp_bytes=256 * MIB, output_dir_bytes=256 * MIB)
    house.host = dataclasses.replace(house.host, bounds=bounds)
    result = house.sh(f"dd if=/dev/zero of={where}/x bs=1M count=200; echo done", memory_mb=64)
    assert (result.end, result.stdout) == (End.OUT_OF_MEMORY, b"")


def test_children_that_are_too_many_for_the_memory_end_the_run(house: House) -> None:
    script = """
import os, time
for _ in range(8):
    if not os.fork():
        x = b"x" * (20 << 20); time.sleep(9); os._exit(0)
for _ in range(8): os.wait()
"""
    assert house.py(script, memory_mb=64).end is End.OUT_OF_MEMORY


def test_a_program_that_handles_a_failed_allocation_goes_on(house: House) -> None:
    script = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 28,) * 2)\n"
    result = house.py(script + "try: b'x' * (1 << 30)\nexcept MemoryError: print('handled')")
    assert (result.end, result.stdout) == (End.EXITED, b"handled\n")


def test_the_wall_clock_ends_all_of_a_run(house: House) -> None:
    script = (
        "echo partial; setsid sleep 99 & sleep 99 & trap '' TERM INT; while :; do sleep 1; done"
    )
    result = house.sh(script, wall_clock_secs=1)
    assert (result.end, result.exit_code, result.signal) == (End.TIMED_OUT, None, None)
    assert (result.stdout, result.stderr) == (b"partial\n", b"")
    assert 1000 <= result.wall_ms < 3000


def test_a_busy_loop_is_ended_by_the_wall_clock_too(house: House) -> None:
    result = house.sh("while :; do :; done", wall_clock_secs=1)
    assert (result.end, result.stderr) == (End.TIMED_OUT, b"")


@pytest.mark.parametrize("redirect", ["", ">&2"])
def test_an_endless_writer_is_stopped_at_the_cap(house: House, redirect: str) -> None:
    result = house.sh(f"echo said >&2; echo said; yes {redirect}", wall_clock_secs=30)
    assert (result.end, result.exit_code) == (End.OUTPUT_LIMIT, None)
    assert sorted([len(result.stdout), len(result.stderr)]) == [5, MIB]
    assert result.wall_ms < 10_000


def test_exactly_the_cap_is_allowed(house: House) -> None:
    result = house.sh(f"head -c {MIB} /dev/zero; head -c {MIB} /dev/zero >&2")
    assert (result.end, result.exit_code) == (End.EXITED, 0)
    assert (len(result.stdout), len(result.stderr)) == (MIB, MIB)


def test_output_is_bytes(house: House) -> None:
    assert house.sh(r"printf '\000\377\015\012'").stdout == b"\x00\xff\r\n"


@contextmanager
def after(secs: float) -> Iterator[int]:
    """A descriptor that becomes readable."""
    read, write = os.pipe()
    timer = threading.Timer(secs, os.write, (write, b"x"))
    timer.start()
    try:
        yield read
    finally:
        timer.join()
        os.close(read)
        os.close(write)


def test_a_run_can_be_interrupted(house: House) -> None:
    with after(1.0) as interrupt:
        result = house.sh("echo partial; sleep 99", interrupt=interrupt)
    assert (result.end, result.stdout, result.stderr) == (End.INTERRUPTED, b"partial\n", b"")
    assert result.wall_ms < 5000


@pytest.mark.parametrize(
    "leave",
    [
        "setsid sh -c 'while :; do sleep 1; done' &",
        "sleep 99 &",
        "(trap '' HUP TERM; sleep 99) >/dev/null 2>&1 &",
    ],
)
def test_a_process_that_is_left_behind_delays_nothing_and_is_dead(house: House, leave: str) -> None:
    result = house.sh(f"{leave} echo bye")
    assert (result.end, result.exit_code, result.stdout) == (End.EXITED, 0, b"bye\n")
    assert result.wall_ms < 5000


def test_a_program_may_close_its_streams_and_go_on(house: House) -> None:
    with house.sandbox() as sandbox:
        script = "echo said; exec >&- 2>&- <&-; sleep 1; touch /output/later; exit 3"
        result = sandbox.execute(run_spec(sandbox, ["sh", "-c", script]), ())
        sandbox.kill()
        assert [file.path for file in sandbox.outputs().files()] == ["later"]
    assert (result.exit_code, result.stdout) == (3, b"said\n")
    assert result.wall_ms >= 1000


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("kill -9 0; sleep 9", End.SIGNALLED),
        ("kill -9 -1; echo alive", End.EXITED),
        ("for s in KILL TERM STOP SEGV; do kill -$s 1 && exit 9; done; echo alive", End.EXITED),
    ],
)
def test_a_program_can_only_end_itself(house: House, script: str, end: End) -> None:
    result = house.sh(script)
    assert result.end is end
    assert result.exit_code in {0, 137}


def _kill_client(sandbox: Sandbox) -> None:
    """`runsc exec` itself, not the shell around it."""
    assert sandbox._shell is not None
    assert sandbox._shell.pid
    for child in psutil.Process(sandbox._shell.pid).children():
        child.kill()


def broken(house: House, harm: str) -> tuple[RunResult, float]:
    """A run whose sandbox or client is harmed from outside."""
    with house.sandbox() as sandbox:
        began = time.monotonic()
        if harm == "the sandbox dies":
            threading.Timer(0.7, sandbox._cgroup.kill).start()
            spec = run_spec(sandbox, ["sh", "-c", "printf partial; sleep 99"])
        elif harm == "its client is killed":
            threading.Timer(0.7, _kill_client, (sandbox,)).start()
            spec = run_spec(sandbox, ["sleep", "99"])
        else:
            assert sandbox._shell is not None
            assert sandbox._shell.pid
            threading.Timer(0.7, os.kill, (sandbox._shell.pid, signal.SIGKILL)).start()
            spec = run_spec(sandbox, ["sleep", "99"])
        return sandbox.execute(spec, ()), time.monotonic() - began


def test_a_sandbox_that_dies_of_something_else_is_our_failure(house: House) -> None:
    result, took = broken(house, "the sandbox dies")
    assert (result.end, result.exit_code, result.signal) == (End.BROKEN, None, None)
    assert (result.stdout, result.stderr) == (b"partial", b"")
    assert result.detail == "the sandbox's kernel died"
    assert took < 10


@pytest.mark.parametrize("victim", ["its client is killed", "the shell around it is killed"])
def test_a_client_that_is_killed_is_our_failure(exec_only: None, house: House, victim: str) -> None:
    result, _ = broken(house, victim)
    assert (result.end, result.exit_code, result.stderr) == (End.BROKEN, None, b"")
    assert "client" in result.detail


def test_what_it_cost_is_told(house: House) -> None:
    script = "import time; x = b'x' * (40 << 20); e = time.time() + 1\nwhile time.time() < e: pass"
    result = house.py(script)
    assert result.cpu_ms is not None
    assert result.max_memory_bytes is not None
    assert 600 < result.cpu_ms < 3000
    assert 40 * MIB < result.max_memory_bytes < 64 * MIB
    assert 1000 <= result.wall_ms < 4000


def test_an_execution_in_what_was_never_booted_is_an_error(house: House) -> None:
    sandbox = Sandbox(house.host, "boxer-never")
    with pytest.raises(SandboxError):
        sandbox.execute(run_spec(sandbox, ["true"]), ())
    sandbox.destroy()
