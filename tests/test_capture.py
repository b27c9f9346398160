"""Reading what a command prints while it runs: bounded, in time, and without anything left."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from executions.sandbox.capture import Capture, Captured, Stop
from executions.sandbox.shell import spawn_shell

CAP = 100_000


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Neither a descriptor nor a child, dead or alive."""
    before = descriptors(), children()
    yield
    assert (descriptors(), children()) == before


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def capture(
    script: str, *, cap: int = CAP, timeout: float = 20, interrupt: int | None = None
) -> Captured:
    return run(["bash", "-c", script], cap=cap, timeout=timeout, interrupt=interrupt)


# As the sandbox's own: waits for a line, then reports the exit code on descriptor 3.
WAITING = 'read -r _; "$@" 3>&-; echo $? >&3'


def run(
    argv: list[str],
    *,
    cap: int = CAP,
    timeout: float = 20,
    interrupt: int | None = None,
    kill: Callable[[], None] = lambda: None,
) -> Captured:
    shell = spawn_shell(["bash", "-c", WAITING, "shell", *argv])

    def end() -> None:
        """As a cgroup's kill does: every process behind the shell."""
        kill()
        os.killpg(shell.pid, signal.SIGKILL)

    try:
        return Capture(cap, interrupt).run(shell, timeout, end)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        # All of its group that are, or become, our children.
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-shell.pid, 0)
        shell.close()


def test_both_streams_and_the_exit_code_are_told_apart() -> None:
    done = capture("printf out; printf err >&2; exit 42")
    assert (done.stop, done.returncode) == (Stop.ENDED, 42)
    assert (done.stdout, done.stderr) == (b"out", b"err")


def test_bytes_are_kept_as_they_are() -> None:
    assert capture(r"printf '\x00\xff\r\n'").stdout == b"\x00\xff\r\n"


def test_a_signal_is_told_apart_from_an_exit_code() -> None:
    assert capture("kill -SEGV $$").returncode == -signal.SIGSEGV


def test_the_death_of_the_client_leaves_no_exit_code() -> None:
    done = capture("kill -KILL $PPID; exit 3")
    assert (done.stop, done.returncode) == (Stop.ENDED, None)


def test_stdin_is_empty() -> None:
    assert capture("wc -c").stdout.strip() == b"0"


@pytest.mark.parametrize("stream", [1, 2])
def test_a_stream_may_fill_its_cap_and_no_byte_more(stream: int) -> None:
    full = capture(f"head -c {CAP} /dev/zero >&{stream}; exit 3")
    assert (full.stop, full.returncode) == (Stop.ENDED, 3)
    over = capture(f"head -c {CAP + 1} /dev/zero >&{stream}; exit 3")
    assert over.stop is Stop.OUTPUT
    for done in (full, over):
        assert len((done.stdout, done.stderr)[stream - 1]) == CAP


def test_each_stream_has_a_cap_of_its_own() -> None:
    done = capture(f"head -c {CAP} /dev/zero; head -c {CAP} /dev/zero >&2")
    assert done.stop is Stop.ENDED
    assert (len(done.stdout), len(done.stderr)) == (CAP, CAP)


def test_an_endless_writer_is_stopped_at_the_cap_and_not_at_the_deadline() -> None:
    began = time.monotonic()
    done = capture("yes", timeout=60)
    assert time.monotonic() - began < 5
    assert done.stop is Stop.OUTPUT
    assert len(done.stdout) == CAP


def test_what_the_other_stream_said_before_is_not_lost() -> None:
    done = capture("printf important >&2; yes")
    assert done.stop is Stop.OUTPUT
    assert done.stderr == b"important"


def test_a_cap_of_nothing_is_passed_by_one_byte() -> None:
    assert capture("true", cap=0).stop is Stop.ENDED
    assert capture("printf x; exec sleep 60", cap=0).stop is Stop.OUTPUT


def test_one_huge_write_is_cut_at_the_cap() -> None:
    script = "import os; os.write(1, b'x' * (64 << 20))"
    done = run(["python3", "-c", script])
    assert (done.stop, len(done.stdout)) == (Stop.OUTPUT, CAP)


def test_both_streams_at_once_do_not_wait_for_each_other() -> None:
    megabytes = 20 << 20
    script = (
        f"head -c {megabytes} /dev/zero & head -c {megabytes} /dev/zero >&2 & "
        f"for i in $(seq 100); do printf o; printf e >&2; done; wait"
    )
    done = capture(script, cap=megabytes + 100)
    assert done.stop is Stop.ENDED
    assert (len(done.stdout), len(done.stderr)) == (megabytes + 100, megabytes + 100)


def test_the_deadline_ends_a_silent_command_and_keeps_what_it_had_printed() -> None:
    done = capture("printf partial; exec sleep 60", timeout=0.5)
    assert (done.stop, done.stdout) == (Stop.DEADLINE, b"partial")
    assert 0.5 <= done.wall_secs < 2


def test_the_deadline_ends_a_command_that_never_stops_printing_little() -> None:
    done = capture("while :; do printf x; sleep 0.01; done", timeout=0.5)
    assert done.stop is Stop.DEADLINE
    assert 0 < len(done.stdout) < CAP


def test_somebody_may_interrupt_it() -> None:
    read, write = os.pipe()
    timer = threading.Timer(0.3, os.write, (write, b"x"))
    timer.start()
    done = capture("printf partial; exec sleep 60", interrupt=read)
    timer.join()
    os.close(read)
    os.close(write)
    assert (done.stop, done.stdout) == (Stop.INTERRUPTED, b"partial")
    assert done.wall_secs < 5


def test_an_interrupt_from_before_ends_it_at_once() -> None:
    read, write = os.pipe()
    os.close(write)
    done = capture("exec sleep 60", interrupt=read)
    os.close(read)
    assert done.stop is Stop.INTERRUPTED


def test_a_background_process_that_keeps_the_pipes_does_not_hold_it_up(tmp_path: Path) -> None:
    done = capture(f"sleep 60 & echo $! > {tmp_path}/pid; echo done")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert (done.stop, done.stdout) == (Stop.ENDED, b"done\n")
    assert done.wall_secs < 5


def test_a_background_process_that_keeps_printing_is_bounded() -> None:
    done = capture("yes & exec sleep 60")  # yes ends once nobody reads
    assert (done.stop, len(done.stdout)) == (Stop.OUTPUT, CAP)


def test_a_command_that_closes_its_streams_may_go_on(tmp_path: Path) -> None:
    done = capture(f"echo said; exec >&- 2>&-; sleep 0.5; touch {tmp_path}/later; exit 7")
    assert (done.stop, done.returncode, done.stdout) == (Stop.ENDED, 7, b"said\n")
    assert (tmp_path / "later").exists()
    assert done.wall_secs >= 0.5


def test_waiting_for_a_command_with_closed_streams_costs_no_cpu() -> None:
    before = time.process_time()
    capture("exec >&- 2>&-; sleep 1")
    assert time.process_time() - before < 0.3


def test_what_was_printed_is_read_before_anything_is_killed() -> None:
    """The client of a sandbox may have a last word on its death."""
    done = run(
        ["bash", "-c", "trap 'echo last words >&2' TERM; echo first >&2; sleep 60 & wait"],
        timeout=0.5,
    )
    assert done.stderr == b"first\n"


def test_a_failing_kill_is_told() -> None:
    def kill() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        run(["sleep", "60"], timeout=0.1, kill=kill)


def test_a_shell_that_cannot_be_started_leaves_no_descriptor() -> None:
    with pytest.raises(FileNotFoundError):
        spawn_shell(["no-such-command"])


def test_a_shell_that_died_waiting_is_an_error() -> None:
    shell = spawn_shell(["true"])
    os.waitpid(shell.pid, 0)
    with pytest.raises(BrokenPipeError):
        Capture(CAP, None).run(shell, 1, lambda: None)
    shell.close()


def test_it_gets_none_of_our_variables_and_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://secret")
    read, write = os.pipe()
    os.set_inheritable(write, True)
    done = run(["sh", "-c", f"env; ls -l /proc/$$/fd; echo >&{write}"])
    os.close(read)
    os.close(write)
    assert b"secret" not in done.stdout
    assert f" {write} -> ".encode() not in done.stdout
    assert done.returncode == 2
    assert b"ad f" in done.stderr  # "Bad fd number" or "Bad file descriptor"
