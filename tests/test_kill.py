"""kill -9 of any process heals by itself, loses nothing that had finished, and leaves nothing."""

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from tests.leftovers import leftovers, mounts
from tests.registry import Registry
from tests.stack import Stack
from tests.stack_access import (
    execution,
    marked_image,
    newest_execution,
    query,
    second_registry,
    until,
)

HEALING_SECS = 30.0
"""Seconds on an idle machine; tests run beside each other."""

LONG = ["sh", "-c", "echo begun; sleep 2; echo ended"]
SHORT = ["echo", "well"]


@pytest.fixture(scope="module")
def killed(registry: Registry) -> Iterator[Stack]:
    """A stack of its own for these tests, stopped in good order after all that."""
    # Sandboxes booted ahead would look like traces of runs; their kills are in test_warm_runs.py.
    with Stack("--workers", "2", env={"BOXER_POOL_SIZE": "0"}) as stack:
        yield stack
        assert stack.stop() == 0, stack.log[-5000:]
        assert leftovers([stack.home]) == []


@pytest.fixture
def client() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


# ── Finding processes ────────────────────────────────────────────────────────────────────────────


def named(stack: Stack, name: str) -> list[psutil.Process]:
    found = psutil.Process(stack.pid).children(recursive=True)
    return [process for process in found if name_of(process) == name]


def name_of(process: psutil.Process) -> str:
    """Empty when it has ended meanwhile, as others do while some are killed."""
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


def worker_of(stack: Stack, exec_id: str) -> psutil.Process:
    return psutil.Process(int(execution(stack, exec_id)["worker"].partition("-")[0]))


def idle_worker(stack: Stack, exec_id: str) -> psutil.Process:
    busy = worker_of(stack, exec_id)
    return next(worker for worker in named(stack, "boxer-worker") if worker != busy)


def backend(stack: Stack, exec_id: str) -> psutil.Process:
    """A process of PostgreSQL that serves the pusher; all others end with it."""
    sql = """
        SELECT pid FROM pg_stat_activity WHERE datname = 'boxer' AND pid <> pg_backend_pid()
        AND query LIKE '%%django_q_ormq%%'
    """
    return psutil.Process(query(stack, sql)[0]["pid"])


def last_resort(stack: Stack, exec_id: str) -> psutil.Process:
    """What ends the parts of a supervisor that was killed."""
    for process in psutil.Process(stack.pid).children():
        if any(word.endswith("/last_resort.py") for word in process.cmdline()):
            return process
    raise LookupError("no last resort")


def sandboxes(stack: Stack) -> list[psutil.Process]:
    """Every process of runsc for this stack."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            ours = any(str(stack.home / "runsc") in word for word in words)
            if ours and words[0].rpartition("/")[2].startswith("runsc"):
                found.append(process)
    return found


# ── What must be true afterwards ─────────────────────────────────────────────────────────────────


def row_when(stack: Stack, exec_id: str, status: str) -> dict[str, Any]:
    """The execution once it has this status, whatever becomes of PostgreSQL meanwhile."""

    def look() -> dict[str, Any] | None:
        with suppress(psycopg.OperationalError):
            row = execution(stack, exec_id)
            return row if row["status"] == status else None
        return None

    found: dict[str, Any] = until(look, f"{exec_id} is {status}", HEALING_SECS)
    return found


def runs_again(stack: Stack, image: str) -> None:
    """A new run ends well; until then requests may be told to come back."""
    deadline = time.monotonic() + HEALING_SECS
    status: int | None = None
    answer: Any = None
    while time.monotonic() < deadline:
        with suppress(OSError):
            status, answer = stack.run(image=image, cmd=SHORT, timeout=HEALING_SECS)
            if status != 503:
                break
        time.sleep(0.1)
    assert (status, answer["stdout"]) == (200, "well\n"), answer


def traces(stack: Stack) -> list[str]:
    """What runs have left on the machine while the service goes on."""
    group = f"boxer-{hashlib.sha256(str(stack.home).encode()).hexdigest()[:8]}"
    groups = [path for path in Path("/sys/fs/cgroup").glob(f"*/{group}/*") if path.is_dir()]
    below = psutil.Process(stack.pid).children(recursive=True)
    zombies = [f"zombie {p.pid}" for p in below if p.status() == psutil.STATUS_ZOMBIE]
    return [
        *mounts([stack.home]),
        *map(str, groups),
        *map(str, (stack.home / "workers").glob("*/*")),
        *map(str, sandboxes(stack)),
        *zombies,
    ]


def leaves_nothing(stack: Stack) -> None:
    found: list[str] = []

    def look() -> bool:
        with suppress(psutil.Error):
            found[:] = traces(stack)
            return not found
        return False

    try:
        until(look, "nothing is left of any run", HEALING_SECS)
    except AssertionError:
        raise AssertionError(f"left behind: {found}") from None


def begin(stack: Stack, client: ThreadPoolExecutor, image: str) -> tuple[str, Future[Any]]:
    """A run that is under way: its id, and its answer to come."""
    before = newest_execution(stack)
    answer = client.submit(stack.run, image=image, cmd=LONG, timeout=60)
    until(lambda: newest_execution(stack) != before, "the run is written down")
    exec_id = newest_execution(stack)
    until(lambda: execution(stack, exec_id)["status"] == "running", "the run is under way")
    return exec_id, answer


# ── The tests ────────────────────────────────────────────────────────────────────────────────────

Victim = Callable[[Stack, str], psutil.Process]


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param(lambda stack, _: stack.part("keeper"), id="keeper"),
        pytest.param(lambda stack, _: named(stack, "boxer-pusher")[0], id="pusher"),
        pytest.param(lambda stack, _: named(stack, "boxer-monitor")[0], id="monitor"),
        pytest.param(idle_worker, id="idle worker"),
        pytest.param(lambda stack, _: stack.part("postgres"), id="PostgreSQL"),
        pytest.param(backend, id="one process of PostgreSQL"),
        pytest.param(last_resort, id="last resort"),
    ],
)
def test_a_run_outlives_whatever_it_does_not_run_in(
    killed: Stack, client: ThreadPoolExecutor, busybox_reference: str, victim: Victim
) -> None:
    _, earlier = killed.run(image=busybox_reference, cmd=SHORT)
    exec_id, answer = begin(killed, client, busybox_reference)
    victim(killed, exec_id).kill()
    status, found = answer.result(60)
    assert (status, found.get("stdout")) == (200, "begun\nended\n"), found
    assert row_when(killed, exec_id, "finished")["attempts"] == 1
    runs_again(killed, busybox_reference)
    assert execution(killed, earlier["exec_id"])["stdout"] == b"well\n"
    leaves_nothing(killed)


def test_a_run_outlives_the_web_process_though_its_client_does_not_hear_of_it(
    killed: Stack, client: ThreadPoolExecutor, busybox_reference: str
) -> None:
    exec_id, answer = begin(killed, client, busybox_reference)
    killed.part("web").kill()
    with pytest.raises(OSError, match=r".*"):
        answer.result(60)
    runs_again(killed, busybox_reference)
    row = row_when(killed, exec_id, "finished")
    assert (row["outcome"], row["stdout"]) == ("exited", b"begun\nended\n")
    leaves_nothing(killed)


def test_a_web_process_that_is_told_to_stop_says_so_to_whoever_waits(
    killed: Stack, client: ThreadPoolExecutor, busybox_reference: str
) -> None:
    exec_id, answer = begin(killed, client, busybox_reference)
    killed.part("web").terminate()
    status, found = answer.result(60)
    assert (status, found["code"]) == (503, "stopping")
    runs_again(killed, busybox_reference)
    row = row_when(killed, exec_id, "finished")
    assert (row["outcome"], row["stdout"]) == ("exited", b"begun\nended\n")


def sentry(stack: Stack, exec_id: str) -> psutil.Process:
    for process in sandboxes(stack):
        words = process.cmdline()
        if words[0] == "runsc-sandbox" and exec_id in words:
            return process
    raise LookupError(f"no sandbox of {exec_id}")


@pytest.mark.parametrize(
    ("victim", "code"),
    [
        pytest.param(worker_of, "lost", id="worker"),
        pytest.param(lambda stack, _: stack.part("cluster"), "lost", id="cluster"),
        pytest.param(sentry, "infra_error", id="sandbox"),
    ],
)
def test_a_run_whose_own_process_is_killed_ends_and_is_not_blamed(
    killed: Stack, client: ThreadPoolExecutor, busybox_reference: str, victim: Victim, code: str
) -> None:
    _, earlier = killed.run(image=busybox_reference, cmd=SHORT)
    exec_id, answer = begin(killed, client, busybox_reference)
    victim(killed, exec_id).kill()
    status, found = answer.result(60)
    assert (status, found["code"], found["exec_id"]) == (500, code, exec_id)
    row = row_when(killed, exec_id, "finished")
    assert (row["outcome"], row["exit_code"]) == ("infra_error", None)
    runs_again(killed, busybox_reference)
    assert execution(killed, earlier["exec_id"])["stdout"] == b"well\n"
    leaves_nothing(killed)


def test_a_run_whose_worker_is_killed_before_it_started_runs_in_another(
    killed: Stack, client: ThreadPoolExecutor, registry: Registry, tmp_path: Path
) -> None:
    with second_registry(registry, tmp_path) as server:
        server.serve(marked_image(tmp_path / "layout", "held"), "held")
        server.hanging |= {path for path in server.answers if "/blobs/" in path}
        image = f"{server.address}/held:latest"
        answer = client.submit(killed.run, image=image, cmd=SHORT, timeout=60)
        assert server.reached.wait(20)
        exec_id = newest_execution(killed)
        assert execution(killed, exec_id)["status"] == "pulling"
        worker_of(killed, exec_id).kill()
        until(lambda: execution(killed, exec_id)["attempts"] == 2, "it is tried again")
        server.release.set()
        status, found = answer.result(60)
    assert (status, found["stdout"], found["exec_id"]) == (200, "well\n", exec_id)
    leaves_nothing(killed)


def test_what_waits_in_the_queue_waits_on_when_all_workers_are_killed(
    killed: Stack, client: ThreadPoolExecutor, busybox_reference: str
) -> None:
    runs = [begin(killed, client, busybox_reference) for _ in range(2)]
    waiting = client.submit(killed.run, image=busybox_reference, cmd=SHORT, timeout=60)
    before = runs[-1][0]
    until(lambda: newest_execution(killed) != before, "it is queued")
    for worker in named(killed, "boxer-worker"):
        with suppress(psutil.NoSuchProcess):  # one may just be replaced
            worker.kill()
    assert [answer.result(60)[1]["code"] for _, answer in runs] == ["lost", "lost"]
    status, found = waiting.result(60)
    assert (status, found["stdout"]) == (200, "well\n")
    leaves_nothing(killed)


def processes_of(stack: Stack) -> list[str]:
    return [line for line in leftovers([stack.home]) if line.startswith("process")]


def kill_and_wait(stack: Stack) -> None:
    stack.kill()
    until(lambda: not processes_of(stack), "all its processes end", HEALING_SECS)


def kill_all_but_sandboxes(stack: Stack) -> None:
    """As when the machine's power fails, but that sandboxes go on without anybody to end them."""
    kept = sandboxes(stack)
    every = [psutil.Process(stack.pid), *psutil.Process(stack.pid).children(recursive=True)]
    doomed = [process for process in every if process not in kept]
    for process in doomed:
        process.suspend()
    for process in doomed:
        process.kill()
    stack.kill()
    assert sandboxes(stack)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(Stack.kill, id="and started again at once"),
        pytest.param(kill_and_wait, id="and started again later"),
        pytest.param(kill_all_but_sandboxes, id="with all of its processes"),
    ],
)
def test_when_the_service_itself_is_killed_the_next_start_heals(
    registry: Registry,
    client: ThreadPoolExecutor,
    busybox_reference: str,
    kill: Callable[[Stack], None],
) -> None:
    stack = Stack("--workers", "2").start()
    _, earlier = stack.run(image=busybox_reference, cmd=SHORT)
    before = newest_execution(stack)
    broken = client.submit(stack.run, image=busybox_reference, cmd=["sleep", "300"])
    until(lambda: newest_execution(stack) != before, "the run is written down")
    exec_id = newest_execution(stack)
    until(lambda: execution(stack, exec_id)["status"] == "running", "the run is under way")
    kill(stack)
    with Stack("--workers", "2", home=stack.home) as again:
        row = row_when(again, exec_id, "finished")
        assert (row["outcome"], row["exit_code"]) == ("infra_error", None)
        assert execution(again, earlier["exec_id"])["stdout"] == b"well\n"
        leaves_nothing(again)
        runs_again(again, busybox_reference)
    with suppress(OSError):  # its connection broke, or its service had time to tell
        assert broken.result(60)[0] in {500, 503}
    # What the killed one had may still have been writing down its ends.
    until(lambda: not processes_of(stack), "the last process ends", HEALING_SECS)
    assert leftovers([stack.home]) == []
