"""A long queue drains, in turns, while processes are killed at random: no run is stuck or twice."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import psycopg
import pytest

from tests.fixtures_accounts import Account, make_accounts
from tests.leftovers import leftovers
from tests.stack import Stack
from tests.stack_access import query

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MANY, FEW = 700, 300
VICTIMS = ("boxer-worker", "boxer-pusher", "boxer-monitor", "keeper", "pool", "web", "cluster")
KILLS = 14
BETWEEN_KILLS_SECS = 4.0
DRAIN_SECS = 600.0
SEED = 20240729

UNFINISHED = """
    SELECT count(*) AS n FROM executions_execution
    WHERE status IN ('queued', 'pulling', 'running')
"""


@pytest.fixture(scope="module")
def drained(busybox_reference: str) -> Iterator[tuple[Stack, dict[str, Account]]]:
    """A stack that a thousand runs were given and that lost its processes while it ran them."""
    with Stack(env={"BOXER_QUEUE_LIMIT": "2000"}) as stack:
        people = make_accounts(stack, many=[], few=[])
        submit(people["many"], MANY, busybox_reference)
        submit(people["few"], FEW, busybox_reference)
        kill_at_random(stack)
        until_drained(stack)
        yield stack, people
        assert stack.stop() == 0, stack.log[-5000:]
        assert leftovers([stack.home]) == []


def submit(account: Account, number: int, image: str) -> None:
    with account.client() as client, ThreadPoolExecutor(4) as pool:

        def one(place: int) -> int:
            asked = {"image": image, "cmd": ["echo", str(place)], "labels": {"place": str(place)}}
            return client.post("/api/v1/executions/", json=asked).status_code

        assert set(pool.map(one, range(number))) == {202}


def kill_at_random(stack: Stack) -> None:
    chosen = random.Random(SEED)
    for number in range(KILLS):
        time.sleep(BETWEEN_KILLS_SECS)
        if number == KILLS // 2:
            stack.part("postgres").kill()
            continue
        name = chosen.choice(VICTIMS)
        with suppress(psutil.NoSuchProcess, LookupError):
            if found := processes(stack, name):
                chosen.choice(found).kill()


def processes(stack: Stack, name: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(stack.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name() == name or name in process.cmdline():
                found.append(process)
    return found


def until_drained(stack: Stack) -> None:
    deadline = time.monotonic() + DRAIN_SECS
    left = -1
    while time.monotonic() < deadline:
        with suppress(psycopg.OperationalError):
            left = query(stack, UNFINISHED)[0]["n"]
            if left == 0:
                return
        time.sleep(0.5)
    raise AssertionError(f"{left} runs haven't ended within {DRAIN_SECS:.0f} s")


def test_every_run_came_to_one_end(drained: tuple[Stack, dict[str, Account]]) -> None:
    stack, _ = drained
    sql = """
        SELECT outcome, error_code, labels->>'place' AS place, attempts,
            (SELECT stdout FROM executions_executionoutput WHERE execution_id = id) AS stdout
        FROM executions_execution
    """
    rows = query(stack, sql)
    assert len(rows) == MANY + FEW
    outcomes = Counter((row["outcome"], row["error_code"]) for row in rows)
    exited = [row for row in rows if row["outcome"] == "exited"]
    assert all(bytes(row["stdout"]) == f"{row['place']}\n".encode() for row in exited)
    # What was running when its worker, or all of them, were killed is lost, and says so.
    assert set(outcomes) <= {("exited", ""), ("infra_error", "lost")}, outcomes
    assert outcomes["infra_error", "lost"] <= KILLS * 4, outcomes
    assert query(stack, "SELECT count(*) AS n FROM django_q_ormq")[0]["n"] == 0


def test_they_took_turns(drained: tuple[Stack, dict[str, Account]]) -> None:
    """While both waited, who had queued fewer got as many turns."""
    stack, people = drained
    sql = """
        SELECT owner_id FROM executions_execution WHERE claimed_at > (
            SELECT max(created_at) FROM executions_execution
        ) ORDER BY claimed_at
    """
    order = [row["owner_id"] for row in query(stack, sql)]
    while_both_wait = order[: 2 * order.count(people["few"].user_id)]
    for upto in range(50, len(while_both_wait), 50):
        turns = while_both_wait[:upto].count(people["few"].user_id)
        assert abs(turns - upto / 2) <= 5 + upto / 10, (upto, turns)
