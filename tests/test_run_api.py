"""POST /run waits for the end of a run and tells it; here the tests play the worker."""

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Coroutine
from contextlib import closing
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connection
from django.test import AsyncClient, Client
from pytest_django import Settings

from executions import hosts, services
from executions.api.asynchronous import KEPT_THREADS
from executions.models import Execution, Outcome, Status
from executions.services import Ending
from tests.answers import error_of

GOOD: dict[str, Any] = {"image": "busybox", "cmd": ["echo", "hi"]}
DIGEST = "sha256:" + "ab" * 32

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def host(transactional_db: None, anonymous: User) -> str:
    host_id = str(uuid.uuid4())
    hosts.started(host_id=host_id, name="here", workers=2, runsc_version="release-1")
    return host_id


def post(client: AsyncClient, body: dict[str, Any]) -> Coroutine[Any, Any, Any]:
    return client.post("/run", json.dumps(body).encode(), content_type="application/json")


def oldest(status: str) -> Execution | None:
    return Execution.objects.filter(status=status).order_by("pk").first()


async def queued(status: str = Status.QUEUED) -> Execution:
    """The oldest execution in `status`, once there is one."""
    async with asyncio.timeout(10):
        while (execution := await sync_to_async(oldest)(status)) is None:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)
    return execution


def claim(exec_id: str, host: str) -> Execution:
    claimed = services.claim(exec_id=exec_id, host_id=host, worker="1")
    assert claimed is not None
    return claimed


def play(exec_id: str, host: str, ending: Ending) -> None:
    """What a worker does to a run, all but running it."""
    claimed = claim(exec_id, host)
    assert services.start(execution=claimed, image_digest=DIGEST, pull_ms=7, start_ms=170)
    assert services.finish(execution=claimed, ending=ending)


async def run(
    client: AsyncClient, host: str, ending: Ending, body: dict[str, Any] = GOOD
) -> tuple[Any, str]:
    """The answer to a request whose run ends like that, and its exec_id."""
    request = asyncio.create_task(post(client, body))
    exec_id = (await queued()).exec_id
    await sync_to_async(play)(exec_id, host, ending)
    async with asyncio.timeout(10):
        return await request, exec_id


async def test_a_run_that_exits_is_answered_in_full(async_client: AsyncClient, host: str) -> None:
    ending = Ending(
        Outcome.EXITED,
        exit_code=42,
        stdout=b"hi\n",
        stderr=b"warned\n",
        wall_ms=12,
        cpu_ms=9,
        max_memory_bytes=4096,
    )
    response, exec_id = await run(async_client, host, ending)
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    body = json.loads(response.content)
    assert isinstance(body.pop("queue_ms"), int)
    assert body == {
        "exec_id": exec_id,
        "exit_code": 42,
        "stdout": "hi\n",
        "stderr": "warned\n",
        "wall_ms": 12,
        "status": "finished",
        "outcome": "exited",
        "signal": None,
        "cpu_ms": 9,
        "max_memory_bytes": 4096,
        "image_digest": DIGEST,
        "pull_ms": 7,
        "start_ms": 170,
    }
    assert exec_id.startswith("boxer-")


@pytest.mark.parametrize(
    ("ending", "exit_code", "signal"),
    [
        (Ending(Outcome.SIGNALLED, exit_code=139, signal=11, wall_ms=1), 139, 11),
        (Ending(Outcome.OUT_OF_MEMORY, wall_ms=1), 137, None),
        (Ending(Outcome.OUT_OF_MEMORY, exit_code=137, signal=9, wall_ms=1), 137, 9),
        (Ending(Outcome.EXITED, exit_code=0, wall_ms=0), 0, None),
    ],
)
async def test_any_end_of_the_program_is_200(
    async_client: AsyncClient, host: str, ending: Ending, exit_code: int, signal: int | None
) -> None:
    response, _ = await run(async_client, host, ending)
    assert response.status_code == 200
    body = json.loads(response.content)
    assert (body["outcome"], body["exit_code"]) == (ending.outcome, exit_code)
    assert body["signal"] == signal
    assert isinstance(body["wall_ms"], int)


async def test_output_that_is_not_text_is_shown_as_far_as_it_can_be(
    async_client: AsyncClient, host: str
) -> None:
    raw = b"a\0b\xff\xfe\xed\xa0\x80\xe2\x82\xac</script>\r\n"
    response, _ = await run(async_client, host, Ending(Outcome.EXITED, exit_code=0, stdout=raw))
    shown = json.loads(response.content)["stdout"]
    assert shown == "a\0b\ufffd\ufffd\ufffd\ufffd\ufffd\u20ac</script>\r\n"
    assert b"\0" not in response.content


async def test_the_wall_clock_is_408_with_what_was_printed(
    async_client: AsyncClient, host: str
) -> None:
    ending = Ending(Outcome.TIMED_OUT, stdout=b"so far\n", wall_ms=2000)
    body = GOOD | {"limits": {"wall_clock_secs": 2}}
    response, exec_id = await run(async_client, host, ending, body)
    told = error_of(response, 408, "timed_out")
    assert told["error"] == "wall clock limit of 2 s exceeded"
    assert (told["exec_id"], told["stdout"], told["stderr"]) == (exec_id, "so far\n", "")


async def test_too_much_output_is_507_with_what_was_printed(
    async_client: AsyncClient, host: str
) -> None:
    ending = Ending(Outcome.OUTPUT_LIMIT, stderr=b"y\n" * 5, wall_ms=9)
    response, exec_id = await run(async_client, host, ending)
    told = error_of(response, 507, "output_limit")
    assert (told["exec_id"], told["stdout"], told["stderr"]) == (exec_id, "", "y\n" * 5)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("image_not_found", 400),
        ("image_too_large", 400),
        ("file_refused", 400),
        ("stopped", 503),
        ("pull_failed", 500),
        ("pull_timeout", 500),
        ("lost", 500),
        ("infra_error", 500),
    ],
)
async def test_a_run_that_failed_is_told_by_its_code(
    async_client: AsyncClient, host: str, code: str, status: int
) -> None:
    ending = Ending(Outcome.INFRA_ERROR, error="the image is not there", error_code=code)
    response, exec_id = await run(async_client, host, ending)
    told = error_of(response, status, code)
    assert (told["exec_id"], told["error"]) == (exec_id, "the image is not there")


async def test_a_failure_without_a_reason_still_says_something(
    async_client: AsyncClient, host: str
) -> None:
    response, _ = await run(async_client, host, Ending(Outcome.INFRA_ERROR))
    error_of(response, 500, "infra_error")


async def test_what_was_asked_is_what_is_written_down(
    async_client: AsyncClient, host: str, anonymous: User, settings: Any
) -> None:
    settings.BOXER_ANONYMOUS_HOST_NETWORK = True
    asked = GOOD | {
        "cmd": ["sh", "-c", ""],
        "env": ["A=b=c", "E="],
        "cwd": "/srv",
        "network": "host",
        "persist": True,
        "limits": {"cpu_cores": 0.5, "memory_mb": 64.0, "nofile": 0, "pids_limit": None},
    }
    _, exec_id = await run(async_client, host, Ending(Outcome.EXITED, exit_code=0), asked)
    row = await Execution.objects.aget(exec_id=exec_id)
    assert row.owner_id == anonymous.pk
    assert (row.image, row.cmd, row.env) == ("busybox", ["sh", "-c", ""], ["A=b=c", "E="])
    assert (row.cwd, row.network, row.persist, row.files) == ("/srv", "host", True, [])
    assert (row.cpu_cores, row.memory_mb, row.nofile, row.pids_limit) == (0.5, 64, 256, 64)
    assert row.wall_clock_secs == 30


async def test_null_and_nothing_are_the_defaults(async_client: AsyncClient, host: str) -> None:
    optional = dict.fromkeys(["env", "cwd", "files", "limits", "network", "persist"])
    _, exec_id = await run(async_client, host, Ending(Outcome.EXITED, exit_code=0), GOOD | optional)
    row = await Execution.objects.aget(exec_id=exec_id)
    assert (row.env, row.cwd, row.files, row.network, row.persist) == ([], "/", [], "none", False)
    assert (row.cpu_cores, row.memory_mb, row.nofile, row.pids_limit) == (1.0, 256, 256, 64)


async def test_an_input_that_is_not_there_is_400_and_nothing_is_queued(
    async_client: AsyncClient,
) -> None:
    response = await post(async_client, GOOD | {"files": ["work/nope.py"]})
    told = error_of(response, 400, "file_not_found")
    assert "work/nope.py" in told["error"]
    assert not await Execution.objects.aexists()


async def test_a_full_queue_is_503(
    async_client: AsyncClient, host: str, settings: Settings
) -> None:
    settings.BOXER_QUEUE_LIMIT = 1
    first = asyncio.create_task(post(async_client, GOOD))
    exec_id = (await queued()).exec_id
    error_of(await post(async_client, GOOD), 503, "queue_full")
    await sync_to_async(play)(exec_id, host, Ending(Outcome.EXITED, exit_code=0))
    assert (await first).status_code == 200


async def test_a_run_that_nobody_takes_is_taken_back(
    async_client: AsyncClient, settings: Settings
) -> None:
    settings.BOXER_QUEUE_WAIT_SECS = 0.2
    told = error_of(await post(async_client, GOOD), 503, "queue_timeout")
    row = await Execution.objects.aget(exec_id=told["exec_id"])
    assert row.status == Status.CANCELLED


async def test_a_run_that_was_taken_is_waited_for_beyond_the_queue(
    async_client: AsyncClient, host: str, settings: Settings
) -> None:
    settings.BOXER_QUEUE_WAIT_SECS = 0.3
    request = asyncio.create_task(post(async_client, GOOD))
    claimed = await sync_to_async(claim)((await queued()).exec_id, host)
    await asyncio.sleep(0.6)
    assert not request.done()
    ending = Ending(Outcome.EXITED, exit_code=5)
    await sync_to_async(services.finish)(execution=claimed, ending=ending)
    assert json.loads((await request).content)["exit_code"] == 5


async def test_a_run_that_somebody_else_cancels_is_503(async_client: AsyncClient) -> None:
    request = asyncio.create_task(post(async_client, GOOD))
    exec_id = (await queued()).exec_id
    await sync_to_async(services.withdraw)(exec_id=exec_id)
    assert error_of(await request, 503)["exec_id"] == exec_id


async def test_a_run_that_never_ends_is_given_up_in_the_end(
    async_client: AsyncClient,
    host: str,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.BOXER_QUEUE_WAIT_SECS = 0
    settings.BOXER_PULL_TIMEOUT_SECS = 0
    monkeypatch.setattr("executions.api.views.AROUND_SECS", -0.5)
    request = asyncio.create_task(post(async_client, GOOD | {"limits": {"wall_clock_secs": 1}}))
    settings.BOXER_QUEUE_WAIT_SECS = 0.2
    exec_id = (await queued()).exec_id
    await sync_to_async(claim)(exec_id, host)
    assert error_of(await request, 503, "busy")["exec_id"] == exec_id
    assert (await Execution.objects.aget(exec_id=exec_id)).status == Status.PULLING


async def test_a_client_that_goes_away_leaves_the_run_alone(
    async_client: AsyncClient, host: str
) -> None:
    request = asyncio.create_task(post(async_client, GOOD))
    exec_id = (await queued()).exec_id
    await asyncio.sleep(0.05)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    await sync_to_async(play)(exec_id, host, Ending(Outcome.EXITED, exit_code=0))
    assert (await Execution.objects.aget(exec_id=exec_id)).status == Status.FINISHED
    response, _ = await run(async_client, host, Ending(Outcome.EXITED, exit_code=3))
    assert json.loads(response.content)["exit_code"] == 3


async def test_each_of_many_waiting_requests_gets_its_own_answer(
    async_client: AsyncClient, host: str
) -> None:
    bodies = [GOOD | {"cmd": ["echo", str(number)]} for number in range(40)]
    requests = [asyncio.create_task(post(async_client, body)) for body in bodies]
    for _ in bodies:
        execution = await queued()
        word = execution.cmd[1].encode()
        ending = Ending(Outcome.EXITED, exit_code=0, stdout=word)
        await sync_to_async(play)(execution.exec_id, host, ending)
    for number, response in enumerate(await asyncio.gather(*requests)):
        assert json.loads(response.content)["stdout"] == str(number)


async def test_a_waiting_request_holds_no_connection(async_client: AsyncClient, host: str) -> None:
    requests = [asyncio.create_task(post(async_client, GOOD)) for _ in range(20)]
    async with asyncio.timeout(20):
        while await Execution.objects.acount() < 20:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.02)
    assert await sync_to_async(connections)() <= 4 + KEPT_THREADS < 20
    for _ in requests:
        exec_id = (await queued()).exec_id
        await sync_to_async(play)(exec_id, host, Ending(Outcome.EXITED, exit_code=0))
    assert {response.status_code for response in await asyncio.gather(*requests)} == {200}


def connections() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend'"
        )
        return int(cursor.fetchone()[0])


async def test_health_answers_while_runs_are_waited_for(
    async_client: AsyncClient, host: str
) -> None:
    request = asyncio.create_task(post(async_client, GOOD))
    exec_id = (await queued()).exec_id
    assert (await async_client.get("/healthz")).status_code == 200
    assert not request.done()
    await sync_to_async(play)(exec_id, host, Ending(Outcome.EXITED, exit_code=0))
    await request


def test_threads_get_the_same_answer(client: Client, host: str) -> None:
    """A server without an event loop (WSGI) works too."""

    def work() -> None:
        with closing(connection):
            for _ in range(1000):
                if execution := oldest(Status.QUEUED):
                    play(execution.exec_id, host, Ending(Outcome.EXITED, exit_code=7))
                    return
                time.sleep(0.01)

    worker = threading.Thread(target=work)
    worker.start()
    response = client.post("/run", json.dumps(GOOD), content_type="application/json")
    worker.join()
    assert json.loads(response.content)["exit_code"] == 7
