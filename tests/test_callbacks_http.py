"""A running Boxer calls back when a run ends, whoever is killed meanwhile."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import psutil
import pytest

from tests.receiver import Receiver, status
from tests.stack import Stack
from tests.stack_access import query, until

EXPIRE = "UPDATE callbacks_delivery SET leased_until = now() WHERE id = %s RETURNING id"


def run_with_callback(stack: Stack, image: str, url: str) -> str:
    """The id of a run that has ended."""
    body = {"image": image, "cmd": ["sh", "-c", "echo printed; exit 5"], "callback_url": url}
    with httpx.Client(base_url=stack.base_url, timeout=60) as api:
        made = api.post("/api/v1/executions/", json=body)
        assert made.status_code == 202, made.text
        exec_id = str(made.json()["exec_id"])
        until(lambda: _has_ended(api, exec_id), "it ends", timeout=120)
    return exec_id


def _has_ended(api: httpx.Client, exec_id: str) -> bool:
    found = api.get(f"/api/v1/executions/{exec_id}/", params={"wait": 30})
    assert found.status_code == 200, found.text
    return bool(found.json()["status"] == "finished")


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
        for path in told["urls"].values():
            assert httpx.get(f"{stack.base_url}{path}", timeout=30).status_code == 200, path
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


@pytest.mark.parametrize("url", ["ftp://example.test/", "https://example.test:22/", "https://"])
def test_an_address_that_could_never_be_sent_to_is_refused(stack: Stack, url: str) -> None:
    body = {"image": "busybox", "cmd": ["true"], "callback_url": url}
    refused = httpx.post(f"{stack.base_url}/api/v1/executions/", json=body, timeout=30)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_callback_url")
    assert list(refused.json()["fields"]) == ["callback_url"]
