"""Warm and cold are one way to run: same answers, and nothing of one run is there for the next."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from executions.sandbox import pool
from tests.leftovers import leftovers
from tests.stack import Stack
from tests.stack_access import download, execution, query, until, upload

Run = Callable[..., tuple[int, Any]]

MEASURED = {
    *("exec_id", "wall_ms", "cpu_ms", "max_memory_bytes", "queue_ms", "pull_ms", "start_ms"),
}

REQUESTS: dict[str, dict[str, Any]] = {
    "hello": {"cmd": ["echo", "hello"]},
    "exit code": {"cmd": ["sh", "-c", "echo out; echo err >&2; exit 42"]},
    "signal": {"cmd": ["sh", "-c", "kill -SEGV $$"]},
    "not found": {"cmd": ["no-such-command"]},
    "not executable": {"cmd": ["/etc/passwd"]},
    "environment": {"cmd": ["env"], "env": ["A=1", "HOME=/x", "B=a b\n'$(c)"]},
    "odd names": {"cmd": ["env"], "env": ["a-b=1", "PWD=/x", "IFS=,"]},
    "arguments": {"cmd": ["printf", "<%s>", "", "-n", "a\nb", "'\"$HOME`x`\\"]},
    "bytes": {"cmd": ["printf", "\\000\\377\\n"]},
    "directory": {"cmd": ["pwd"], "cwd": "/made/for/it"},
    "directory in /tmp": {"cmd": ["sh", "-c", "pwd; touch x; ls"], "cwd": "/tmp/made"},
    "a file": {"cmd": ["cat", "/work/in.txt"], "files": ["work/in.txt"], "persist": True},
    "a file that can't be added": {
        "cmd": ["sh", "-c", "cat /tmp/in.txt; rm -f /tmp/in.txt; ls /tmp"],
        "files": ["tmp/in.txt"],
        "persist": True,
    },
    "limits": {
        "cmd": ["sh", "-c", "ulimit -n; ulimit -p; cat /proc/self/status | grep -i cap"],
        "limits": {"nofile": 77, "pids_limit": 33},
    },
    "world": {
        "cmd": ["sh", "-c", "id; hostname; ls -a / /tmp /dev/shm /output /dev; cat /proc/mounts"]
    },
    "processes": {"cmd": ["sh", "-c", "echo $$ $PPID; umask; set -- /proc/[0-9]*; echo $#"]},
    "out of memory": {
        "cmd": ["sh", "-c", "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done"],
        "limits": {"memory_mb": 32},
    },
    "time-out": {"cmd": ["sh", "-c", "echo begun; sleep 60"], "limits": {"wall_clock_secs": 1}},
    "output limit": {"cmd": ["yes"]},
    "closed output": {"cmd": ["sh", "-c", "exec >&- 2>&-; sleep 0.2; exit 5"]},
    "left behind": {"cmd": ["sh", "-c", "sleep 60 & echo done"]},
    "stdin": {"cmd": ["sh", "-c", "wc -c; read x || echo nothing"]},
}


@pytest.fixture(scope="module")
def warm(busybox_reference: str) -> Iterator[Stack]:
    environment = {
        "BOXER_POOL_PINNED": busybox_reference,
        "BOXER_POOL_SIZE": "3",
        "BOXER_OUTPUT_LIMIT_BYTES": "100000",
    }
    with Stack(env=environment) as stack:
        upload_inputs(stack)
        yield stack
        assert stack.stop() == 0, stack.log[-5000:]
        assert leftovers([stack.home]) == []


@pytest.fixture(scope="module")
def cold(busybox_reference: str) -> Iterator[Stack]:
    environment = {"BOXER_POOL_SIZE": "0", "BOXER_OUTPUT_LIMIT_BYTES": "100000"}
    with Stack("--workers", "1", env=environment) as stack:
        upload_inputs(stack)
        yield stack


def upload_inputs(stack: Stack) -> None:
    for path in ("work/in.txt", "tmp/in.txt"):
        upload(stack, path, f"contents of {path}\n".encode())


@pytest.fixture
def run_warm(warm: Stack, busybox_reference: str) -> Run:
    """Waits until a sandbox is booted, runs in it, and sees to it that it was that one."""

    def run(*, must_be_warm: bool = True, **request: Any) -> tuple[int, Any]:
        until(lambda: (pool.status(warm.home / "pool.sock") or {}).get("idle"), "a warm sandbox")
        status, answer = warm.run(image=busybox_reference, **request)
        row = execution(warm, answer["exec_id"])
        assert row["warm"] is must_be_warm
        return status, answer

    return run


def test_the_first_run_of_a_pinned_image_after_a_start_is_warm(
    warm: Stack, busybox_reference: str
) -> None:
    [first] = query(warm, "SELECT min(id) AS id FROM executions_execution")
    if first["id"] is None:
        _, answer = warm.run(image=busybox_reference, cmd=["true"])
        assert execution(warm, answer["exec_id"])["warm"]
    else:
        sql = "SELECT warm FROM executions_execution WHERE id = %s"
        assert query(warm, sql, first["id"]) == [{"warm": True}]


@pytest.mark.parametrize("name", REQUESTS)
def test_warm_and_cold_answer_alike(
    run_warm: Run, cold: Stack, busybox_reference: str, name: str
) -> None:
    request = REQUESTS[name]
    addable = name != "a file that can't be added"
    answers = [
        run_warm(must_be_warm=addable, **request),
        cold.run(image=busybox_reference, **request),
    ]
    told = [
        (status, {key: value for key, value in answer.items() if key not in MEASURED})
        for status, answer in answers
    ]
    assert told[0] == told[1]


def test_warm_and_cold_keep_the_same_outputs(
    run_warm: Run, warm: Stack, cold: Stack, busybox_reference: str
) -> None:
    script = "cd /output; mkdir d; echo x > d/a; ln -s /etc/passwd l; truncate -s 1T big; mkfifo f"
    request: dict[str, Any] = {"cmd": ["sh", "-c", script], "persist": True}
    kept = []
    for stack, (_, answer) in (
        (warm, run_warm(**request)),
        (cold, cold.run(image=busybox_reference, **request)),
    ):
        content = download(stack, f"output/{answer['exec_id']}/d/a")
        kept.append((content, execution(stack, answer["exec_id"])["left_out"]))
    assert kept[0] == kept[1]
    assert kept[0][0] == (200, b"x\n")


LEAVE_TRACES = """
echo secret > /tmp/trace; echo secret > /dev/shm/trace; echo secret > /output/trace
mkdir -p /tmp/a/b; export TRACE=secret; hostname traced 2>/dev/null; ulimit -n 20
(sleep 300; echo late > /output/late) & sleep 300 &
echo left
"""

LOOK_FOR_TRACES = """
ls -a /tmp /dev/shm /output; env; hostname; ulimit -n
for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done
"""


def test_nothing_a_run_leaves_is_there_for_the_next(run_warm: Run) -> None:
    for _ in range(3):
        _, left = run_warm(cmd=["sh", "-c", LEAVE_TRACES], limits={"nofile": 99})
        assert left["stdout"] == "left\n"
        status, found = run_warm(cmd=["sh", "-c", LOOK_FOR_TRACES])
        assert status == 200
        for trace in ("trace", "secret", "TRACE", "sleep", "late"):
            assert trace not in found["stdout"]
        assert "\nboxer\n256\n" in found["stdout"]


def test_a_sandbox_that_was_frozen_for_long_knows_the_time(run_warm: Run) -> None:
    time.sleep(3)
    _, answer = run_warm(cmd=["date", "+%s"])
    assert abs(int(answer["stdout"]) - time.time()) < 5


def test_killing_the_pool_in_the_middle_of_load_loses_no_run(
    warm: Stack, busybox_reference: str
) -> None:
    def one(number: int) -> tuple[int, Any]:
        status, answer = warm.run(
            image=busybox_reference, cmd=["sh", "-c", f"sleep 0.2; echo {number}"]
        )
        return status, answer.get("stdout")

    with ThreadPoolExecutor(4) as clients:
        answers = [clients.submit(one, number) for number in range(24)]
        for _ in range(3):
            time.sleep(1)
            warm.part("pool").kill()
            until(lambda: pool.status(warm.home / "pool.sock"), "a new pool")
        assert [answer.result() for answer in answers] == [(200, f"{n}\n") for n in range(24)]
    assert warm.get("/readyz")[0] == 200


def test_a_worker_that_is_killed_takes_its_warm_sandbox_along(
    warm: Stack, run_warm: Run, busybox_reference: str
) -> None:
    with ThreadPoolExecutor(1) as client:
        until(lambda: (pool.status(warm.home / "pool.sock") or {}).get("idle"), "a warm sandbox")
        waiting = client.submit(warm.run, image=busybox_reference, cmd=["sleep", "30"])
        sql = "SELECT exec_id, worker FROM executions_execution WHERE status = 'running'"
        [row] = until(lambda: query(warm, sql), "it runs")
        psutil.Process(int(row["worker"].partition("-")[0])).kill()
        status, answer = waiting.result()
    assert (status, answer["code"]) == (500, "lost")
    directory = warm.home / "workers" / row["worker"]
    until(lambda: not directory.exists(), "its directory is gone")
    assert json.dumps(str(directory)) not in json.dumps(leftovers([warm.home]))
    assert run_warm(cmd=["echo", "on"])[0] == 200


def test_a_sandbox_that_died_idle_costs_nobody_a_run(
    warm: Stack, run_warm: Run, busybox_reference: str
) -> None:
    run_warm(cmd=["true"])
    until(lambda: (pool.status(warm.home / "pool.sock") or {}).get("idle") == 3, "a full pool")
    for process in warm.part("pool").children():
        if process.cmdline()[:1] == ["runsc-sandbox"]:
            process.kill()
    for _ in range(4):
        status, answer = warm.run(image=busybox_reference, cmd=["echo", "alive"])
        assert (status, answer.get("stdout")) == (200, "alive\n"), answer


def test_what_a_stalled_pool_gives_too_late_does_not_stay(
    warm: Stack, run_warm: Run, busybox_reference: str
) -> None:
    run_warm(cmd=["true"])
    until(lambda: (pool.status(warm.home / "pool.sock") or {}).get("idle") == 3, "a full pool")
    part = warm.part("pool")
    part.suspend()
    try:
        status, answer = warm.run(image=busybox_reference, cmd=["sh", "-c", "sleep 1; echo cold"])
    finally:
        part.resume()
    assert (status, answer["stdout"]) == (200, "cold\n")
    assert not execution(warm, answer["exec_id"])["warm"]
    until(lambda: pool.status(warm.home / "pool.sock"), "the pool answers again")
    owned = f"{part.pid}-*"

    def strays() -> list[str]:
        kept = {path.name for path in (warm.home / "workers").glob(f"{owned}/warm-*")}
        found = {path.name for path in (warm.home / "workers").glob("*/warm-*")}
        return sorted(found - kept)

    until(lambda: not strays(), "nothing lies with a worker")
