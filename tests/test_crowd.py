"""Many clients at once: three hundred wait on one web process, and eight keep it busy for long."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.leftovers import mounts
from tests.made_images import busybox_image
from tests.registry import Registry
from tests.stack import Stack
from tests.stack_access import query, until, upload

CROWD = 300
REAL_RUNS = 40
"""Of the crowd; the others' runs are made to end while they wait, since a sandbox for each would
keep two cores busy for minutes without telling anything more about waiting."""
ENDS = {200: ("stdout", "ended\n"), 503: ("code", "cancelled")}
CONNECTIONS = 40
WORKERS = 8


@pytest.fixture(scope="module")
def crowded(registry: Registry) -> Iterator[Stack]:
    with Stack("--workers", str(WORKERS)) as stack:
        yield stack


@pytest.fixture(scope="module")
def image(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    digest = registry.push(busybox_image(tmp_path_factory.mktemp("b") / "layout"), "crowd:1")
    return f"{registry.address}/crowd@{digest}"


def clients(stack: Stack) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=stack.base_url, timeout=170, limits=limits)


def counted(stack: Stack, status: str) -> int:
    sql = "SELECT count(*) FROM executions_execution WHERE status = %s"
    return int(query(stack, sql, status)[0]["count"])


def unfinished(stack: Stack) -> int:
    return sum(counted(stack, status) for status in ("queued", "pulling", "running"))


def exited(stack: Stack) -> int:
    sql = "SELECT count(*) FROM executions_execution WHERE outcome = 'exited'"
    return int(query(stack, sql)[0]["count"])


def connections(stack: Stack) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    return int(query(stack, sql)[0]["count"])


def withdraw_all_but(stack: Stack, kept: int) -> int:
    """End the youngest waiting runs as cancelled, telling those who wait; how many they were."""
    sql = """
        WITH doomed AS (
            SELECT id, message_id FROM executions_execution WHERE status = 'queued'
            ORDER BY id OFFSET %s FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM django_q_ormq USING doomed WHERE django_q_ormq.id = doomed.message_id
        ), ended AS (
            UPDATE executions_execution execution SET status = 'cancelled', finished_at = now()
            FROM doomed WHERE execution.id = doomed.id RETURNING exec_id
        )
        SELECT pg_notify('boxer_ended', exec_id) FROM ended
    """
    return len(query(stack, sql, kept))


async def health(client: httpx.AsyncClient, times: int) -> list[float]:
    """Seconds that each of some GET /healthz took."""
    taken = []
    for _ in range(times):
        began = time.monotonic()
        response = await client.get("/healthz")
        taken.append(time.monotonic() - began)
        assert (response.status_code, response.json()) == (200, {"ok": True})
        await asyncio.sleep(0.05)
    return sorted(taken)


@pytest.mark.slow
async def test_three_hundred_clients_wait_without_starving_anybody(
    crowded: Stack, image: str
) -> None:
    before = exited(crowded)
    async with clients(crowded) as client:

        async def run(seconds: float) -> httpx.Response:
            request = {"image": image, "cmd": ["sh", "-c", f"sleep {seconds}; echo ended"]}
            return await client.post("/run", json=request)

        # Every worker is busy while the crowd gathers and is measured.
        busy = [asyncio.create_task(run(20)) for _ in range(WORKERS)]
        await asyncio.to_thread(until, lambda: counted(crowded, "running") == WORKERS, "all busy")
        crowd = [asyncio.create_task(run(0.1)) for _ in range(CROWD)]
        await asyncio.to_thread(until, lambda: counted(crowded, "queued") == CROWD, "all wait")

        taken = await health(client, 40)
        assert taken[len(taken) * 95 // 100] < 0.5, taken
        assert await asyncio.to_thread(connections, crowded) < CONNECTIONS
        ready = await client.get("/readyz")
        assert ready.status_code == 200, ready.text

        # Clients go away in the middle, all at once.
        gone, crowd = crowd[:20], crowd[20:]
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        withdrawn = await asyncio.to_thread(withdraw_all_but, crowded, REAL_RUNS)
        # All of these ends come at once: slower for a moment, but it goes on answering.
        taken = await health(client, 20)
        assert taken[len(taken) // 2] < 0.5, taken
        assert taken[-1] < 5, taken
        answers = await asyncio.gather(*busy, *crowd)

    found = Counter(answer.status_code for answer in answers)
    assert withdrawn == CROWD - REAL_RUNS
    assert set(found) == {200, 503}
    assert found.total() == WORKERS + CROWD - len(gone)
    assert withdrawn - len(gone) <= found[503] <= withdrawn
    for answer in answers:
        key, expected = ENDS[answer.status_code]
        assert answer.json()[key] == expected
    # The runs of those who went have ended too.
    await asyncio.to_thread(until, lambda: unfinished(crowded) == 0, "every run has ended")
    assert exited(crowded) - before == WORKERS + REAL_RUNS
    assert await asyncio.to_thread(connections, crowded) < CONNECTIONS


@pytest.mark.slow
async def test_two_hundred_runs_eight_at_a_time_answer_rightly_and_leave_nothing(
    crowded: Stack, image: str
) -> None:
    async with clients(crowded) as client:
        turn = asyncio.Semaphore(8)

        async def run(number: int) -> tuple[int, Any]:
            script = f"echo {number}; cat /in/{number % 8}; echo {number} > /output/n"
            request = {
                "image": image,
                "cmd": ["sh", "-c", f"{script}; exit {number % 4}"],
                "files": [f"in/{number % 8}"],
                "persist": True,
                "limits": {"wall_clock_secs": 60, "memory_mb": 64},
            }
            async with turn:
                response = await client.post("/run", json=request)
            return response.status_code, response.json()

        for number in range(8):
            upload(crowded, f"in/{number}", f"input {number}".encode())
        answers = await asyncio.gather(*(run(number) for number in range(200)))

        for number, (status, answer) in enumerate(answers):
            assert status == 200, answer
            assert answer["stdout"] == f"{number}\ninput {number % 8}"
            assert (answer["exit_code"], answer["stderr"]) == (number % 4, "")
            output = await client.get("/files", params={"path": f"output/{answer['exec_id']}/n"})
            assert output.text == f"{number}\n"
    assert len({answer["exec_id"] for _, answer in answers}) == 200
    workers = crowded.home / "workers"
    # Those of sandboxes booted ahead are no run's.
    until(lambda: not list(workers.glob("*/boxer-*")), "the last sandbox is removed")
    assert [line for line in mounts([crowded.home]) if "/warm-" not in line] == []
    assert unfinished(crowded) == 0
    assert query(crowded, "SELECT id FROM django_q_ormq") == []
