"""A supervisor starts parts again when they die, more slowly the more often, and ends them all."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

# What a test supervises is told on the command line: name, code of the part, settings of the part.
PROGRAM = """
import json, logging, sys
from boxer_site.supervisor import Part, StartFailed, Supervisor
logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
with Supervisor(stop_within_secs=4) as supervisor:
    for name, code, settings in json.loads(sys.argv[1]):
        command = [sys.executable, "-IS", "-u", "-c", code]
        supervisor.start(Part(name, lambda command=command: command, **settings))
    print("started", flush=True)
    supervisor.run()
print("stopped", flush=True)
"""
SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(15, lambda *_: print('no')); time.sleep(60)"


Settings = dict[str, object]


class Supervised:
    def __init__(self, *parts: tuple[str, str, Settings]) -> None:
        command = [sys.executable, "-u", "-c", PROGRAM, json.dumps(parts)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parent.parent,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.wait_for("started")

    def wait_for(self, text: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return line
        raise AssertionError(f"ended without saying {text!r}")

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, code: str) -> psutil.Process:
        return next(child for child in self.children() if code in child.cmdline())

    def stop(self, *signals: int) -> tuple[float, list[psutil.Process]]:
        """How long it took, and who of its processes is still there."""
        family = self.children()
        began = time.monotonic()
        for signum in signals:
            self.process.send_signal(signum)
            time.sleep(0.3)
        assert self.process.wait(10) == 0
        took = time.monotonic() - began
        return took, [child for child in family if child.is_running()]


@pytest.fixture
def started() -> Iterator[list[Supervised]]:
    running: list[Supervised] = []
    yield running
    for supervised in running:
        if supervised.process.poll() is None:
            supervised.process.kill()
            supervised.process.wait()
        assert supervised.process.stdout is not None
        supervised.process.stdout.close()


def test_a_killed_part_is_started_again_at_once_and_then_ever_more_slowly(
    started: list[Supervised],
) -> None:
    started.append(Supervised(("a", SLEEP, {})))
    for delay in ("0.2", "0.4", "0.8"):
        deadline = time.monotonic() + 5
        while not any(SLEEP in c.cmdline() for c in started[0].children()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        started[0].child(SLEEP).kill()
        line = started[0].wait_for("starting it again")
        assert line == f"a was ended by SIGKILL; starting it again in {delay} s\n"


def test_a_part_that_fails_is_named_with_its_exit_code(started: list[Supervised]) -> None:
    started.append(Supervised(("a", "raise SystemExit(3)", {})))
    assert started[0].wait_for("starting").startswith("a exited with 3; ")


def test_a_part_that_is_to_run_once_is_not_started_again(started: list[Supervised]) -> None:
    started.append(Supervised(("once", "pass", {"restart": False}), ("b", SLEEP, {})))
    time.sleep(1)
    assert [c for c in started[0].children() if "pass" in c.cmdline()] == []


def lives(process: psutil.Process) -> bool:
    """What is dead and not reaped yet is dead."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_dead_part_has_forked_dies_before_its_successor_starts(
    started: list[Supervised],
) -> None:
    code = "import os, time; os.fork(); time.sleep(60)"
    started.append(Supervised(("a", code, {})))
    time.sleep(0.5)
    family = [child for child in started[0].children() if code in child.cmdline()]
    assert len(family) == 2
    next(child for child in family if child.ppid() == started[0].process.pid).kill()
    started[0].wait_for("starting it again")
    assert [child for child in family if lives(child)] == []


def test_the_last_started_part_is_stopped_first(started: list[Supervised], tmp_path: Path) -> None:
    order = tmp_path / "order"
    code = (
        "import signal, sys, time\n"
        f"def end(*_): open({str(order)!r}, 'a').write(NAME); sys.exit()\n"
        "signal.signal(15, end); time.sleep(60)"
    )
    parts = [(name, f"NAME = {name!r}\n{code}", Settings()) for name in "abc"]
    started.append(Supervised(*parts))
    time.sleep(0.5)
    started[0].stop(signal.SIGTERM)
    assert order.read_text() == "cba"


def test_a_part_that_ignores_its_signal_is_killed_after_its_grace(
    started: list[Supervised],
) -> None:
    started.append(Supervised(("a", STUBBORN, {"grace_secs": 1.0})))
    time.sleep(0.3)
    took, remaining = started[0].stop(signal.SIGTERM)
    assert remaining == []
    assert 1.0 <= took < 3.0


def test_stubborn_parts_together_take_no_longer_than_the_whole_may(
    started: list[Supervised],
) -> None:
    parts = [(name, STUBBORN, Settings(grace_secs=3.0)) for name in "abcd"]
    started.append(Supervised(*parts))
    time.sleep(0.5)
    took, remaining = started[0].stop(signal.SIGTERM)
    assert remaining == []
    assert took < 7.0


def test_a_second_signal_cuts_every_grace_short(started: list[Supervised]) -> None:
    parts = [(name, STUBBORN, Settings(grace_secs=30.0)) for name in "ab"]
    started.append(Supervised(*parts))
    time.sleep(0.5)
    took, remaining = started[0].stop(signal.SIGINT, signal.SIGINT)
    assert remaining == []
    assert took < 3.0


def test_a_process_that_left_its_part_is_killed_at_the_end(started: list[Supervised]) -> None:
    code = "import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(60)"
    started.append(Supervised(("a", code, {})))
    time.sleep(0.5)
    _, remaining = started[0].stop(signal.SIGTERM)
    assert remaining == []


def test_parts_end_when_the_supervisor_is_killed_even_the_stubborn_ones(
    started: list[Supervised],
) -> None:
    started.append(Supervised(("a", SLEEP, {}), ("b", STUBBORN, {})))
    time.sleep(0.5)
    family = started[0].children()
    started[0].process.kill()
    gone, remaining = psutil.wait_procs(family, timeout=15)
    assert remaining == []
    assert len(gone) == 3
