"""A running Boxer calls back when a run ends, whoever is killed meanwhile."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

import psutil

from tests.receiver import Receiver, status
from tests.stack import Stack
from tests.stack_access import newest_execution, query, until

CALLED = "UPDATE executions_execution SET callback_url = %s WHERE exec_id = %s RETURNING id"
EXPIRE = "UPDATE callbacks_delivery SET leased_until = now() WHERE id = %s RETURNING id"


def run_with_callback(stack: Stack, image: str, url: str) -> str:
    """A run that is given the address while it runs; its id once it has ended."""
    before, answers = newest_execution(stack), []

    def run() -> None:
        cmd = ["sh", "-c", "sleep 2; echo printed; exit 5"]
        answers.append(stack.run(image=image, cmd=cmd, timeout=120))

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: newest_execution(stack) != before, "it is queued")
    exec_id = newest_execution(stack)
    assert query(stack, CALLED, url, exec_id)
    thread.join(120)
    [(code, answer)] = answers
    assert (code, answer["exec_id"]) == (200, exec_id)
    return exec_id


def callbacks(stack: Stack, exec_id: str) -> list[dict[str, Any]]:
    code, answer = stack.get(f"/api/v1/executions/{exec_id}/callbacks/")
    assert code == 200
    found: list[dict[str, Any]] = answer["callbacks"]
    return found


def test_the_end_is_sent_signed_and_again_after_a_failure(
    stack: Stack, busybox_reference: str
) -> None:
    with Receiver([status(503, b"later")]) as receiver:
        exec_id = run_with_callback(stack, busybox_reference, receiver.url())
        until(lambda: len(receiver.received) == 2, "two tries", timeout=90)
        _, secret = stack.get("/api/v1/callback-secret/")
        assert all(got.is_signed_with(secret["secret"]) for got in receiver.received)
        told = json.loads(receiver.received[1].body)
        assert (told["exec_id"], told["exit_code"]) == (exec_id, 5)
        [delivery] = until(
            lambda: [one for one in callbacks(stack, exec_id) if one["state"] == "delivered"],
            "it is written down",
        )
        assert [one["status"] for one in delivery["tries"]] == [503, 204]
        assert {got.headers["boxer-delivery"] for got in receiver.received} == {delivery["id"]}


def test_when_the_worker_that_sends_is_killed_another_one_does(
    stack: Stack, busybox_reference: str
) -> None:
    reached, done = threading.Event(), threading.Event()

    def hang(_handler: BaseHTTPRequestHandler) -> None:
        reached.set()
        done.wait(120)

    with Receiver([hang]) as receiver:
        try:
            exec_id = run_with_callback(stack, busybox_reference, receiver.url())
            assert reached.wait(60)
            os.kill(sender_to(receiver.server.server_port), signal.SIGKILL)
            [delivery] = callbacks(stack, exec_id)
            assert delivery["state"] == "pending"
            query(stack, EXPIRE, delivery["id"])  # 30 s later
            until(lambda: len(receiver.received) == 2, "it comes again", timeout=90)
        finally:
            done.set()
        [delivery] = until(
            lambda: [one for one in callbacks(stack, exec_id) if one["state"] == "delivered"],
            "it is written down",
        )
        errors = [one["error"] for one in delivery["tries"]]
        assert errors == ["the worker died while it sent it", ""]
        assert {got.headers["boxer-delivery"] for got in receiver.received} == {delivery["id"]}
    stack.wait_until_ready()


def sender_to(port: int) -> int:
    """The worker whose connection to the port is open."""
    own = os.getpid()
    [pid] = {
        one.pid
        for one in psutil.net_connections("tcp")
        if one.raddr and one.raddr.port == port and one.pid not in (None, own)
    }
    assert isinstance(pid, int)
    assert psutil.Process(pid).name() == "boxer-worker"
    return pid
