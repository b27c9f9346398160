"""Quotas of a whole Boxer, over HTTP: a crowd can't pass one, and outputs are held to them."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from executions.quotas.known import TTL_SECS
from tests.made_images import busybox_image
from tests.registry import Registry
from tests.stack import Stack
from tests.stack_access import execution, query

_MOST_AT_ONCE = """
    SELECT max((SELECT count(*) FROM executions_execution other
        WHERE other.id > %s AND other.{begin} <= one.{begin}
        AND other.finished_at > one.{begin})) AS most
    FROM executions_execution one WHERE one.id > %s
"""


@pytest.fixture(scope="module")
def image(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    digest = registry.push(busybox_image(tmp_path_factory.mktemp("q") / "layout"), "quotas:1")
    return f"{registry.address}/quotas@{digest}"


@pytest.fixture(scope="module")
def quota(stack: Stack) -> Iterator[int]:
    """One of everybody that says nothing so far; all processes have heard of it."""
    [row] = query(stack, "INSERT INTO quotas_quota (everybody) VALUES (true) RETURNING id")
    time.sleep(TTL_SECS + 0.5)
    yield row["id"]
    query(stack, "DELETE FROM quotas_quota WHERE id = %s RETURNING id", row["id"])


def say(stack: Stack, quota: int, **fields: int) -> None:
    """What it says from now on, and nothing else."""
    values = {"runs_at_a_time": None, "runs_queued": None, "stored_files": None, **fields}
    names = ", ".join(f"{name} = %s" for name in values)
    sql = f"UPDATE quotas_quota SET {names} WHERE id = %s RETURNING id"  # noqa: S608 (our own)
    query(stack, sql, *values.values(), quota)


def together(stack: Stack, image: str, count: int, secs: str) -> list[tuple[int, Any]]:
    def run(_: int) -> tuple[int, Any]:
        return stack.run(image=image, cmd=["sleep", secs], timeout=120)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def newest(stack: Stack) -> int:
    [row] = query(stack, "SELECT coalesce(max(id), 0) AS id FROM executions_execution")
    return int(row["id"])


def most_at_once(stack: Stack, since: int, begin: str) -> int:
    [row] = query(stack, _MOST_AT_ONCE.format(begin=begin), since, since)
    return int(row["most"])


def test_fifty_requests_at_once_cannot_pass_a_limit_of_three(
    stack: Stack, image: str, quota: int
) -> None:
    say(stack, quota, runs_at_a_time=3, runs_queued=0)
    since = newest(stack)
    answers = together(stack, image, 50, "3")
    statuses = Counter(status for status, _ in answers)
    assert set(statuses) == {200, 429}, statuses
    assert statuses[200] >= 3
    assert most_at_once(stack, since, "created_at") == 3
    refused = next(body for status, body in answers if status == 429)
    assert refused["code"] == "quota_exceeded"
    assert refused["quota"]["name"] == "runs_queued"


def test_what_is_more_than_may_run_at_a_time_waits(stack: Stack, image: str, quota: int) -> None:
    say(stack, quota, runs_at_a_time=1)
    since = newest(stack)
    assert {status for status, _ in together(stack, image, 5, "0.3")} == {200}
    assert most_at_once(stack, since, "claimed_at") == 1


def test_outputs_without_room_are_left_out_with_the_reason(
    stack: Stack, image: str, quota: int
) -> None:
    say(stack, quota, stored_files=0)
    status, answer = stack.run(
        image=image, cmd=["sh", "-c", "echo x > /output/kept.txt"], persist=True
    )
    assert (status, answer["exit_code"]) == (200, 0), answer
    [left_out] = execution(stack, answer["exec_id"])["left_out"]
    assert left_out["path"] == "kept.txt"
    assert "stored_files" in left_out["reason"]
