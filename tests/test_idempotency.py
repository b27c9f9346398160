"""Whoever repeats a request with its Idempotency-Key gets the answer to the first."""

import hashlib
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from rest_framework.test import APIClient

from executions import hosts
from executions import services as runs
from executions.accounts.models import Token
from executions.actor import Actor
from executions.errors import IdempotencyMismatch, QueueFull
from executions.idempotency import services
from executions.idempotency.models import Key
from executions.idempotency.services import Made
from executions.image_policy.models import Prefetch, Rule
from executions.models import Execution, new_exec_id
from executions.sandbox.spec import Limits
from tests.stack import Stack
from tests.stack_access import query

EXECUTIONS = "/api/v1/executions/"
ONE = hashlib.sha256(b"one").digest()
OTHER = hashlib.sha256(b"other").digest()
AT_ONCE = 20

# ── The service ──


def submit(owner: User) -> str:
    exec_id = new_exec_id()
    limits = Limits(1.0, 64, 16, 5, 64)
    request = runs.RunRequest(
        exec_id, "busybox", ("true",), (), "/", (), "none", False, limits, stdin=b"in"
    )
    runs.submit(actor=Actor(owner.pk, owner.username), request=request)
    return exec_id


@pytest.fixture
def owner(transactional_db: None, anonymous: User) -> User:
    hosts.started(host_id=str(uuid.uuid4()), name="here", workers=2, runsc_version="1")
    return anonymous


def once(owner: User, make: Callable[[], str], fingerprint: bytes = ONE) -> Made:
    return services.once(owner_id=owner.pk, key="key", fingerprint=fingerprint, make=make)


def never() -> str:
    raise AssertionError("it was to be made once")


def test_twenty_at_once_make_one_execution(owner: User) -> None:
    barrier = threading.Barrier(AT_ONCE)

    def ask(_: int) -> Made:
        try:
            barrier.wait(60)
            return once(owner, lambda: submit(owner))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, range(AT_ONCE)))
    assert Execution.objects.count() == 1
    assert {made.id for made in answers} == {Execution.objects.get().exec_id}
    assert sorted(made.replayed for made in answers) == [False] + [True] * (AT_ONCE - 1)


def test_another_request_with_the_key_is_refused(owner: User) -> None:
    once(owner, lambda: submit(owner))
    with pytest.raises(IdempotencyMismatch):
        once(owner, never, OTHER)


def test_a_key_is_its_owners(owner: User, alice: User) -> None:
    first = once(owner, lambda: submit(owner))
    second = once(alice, lambda: submit(alice), OTHER)
    assert first.id != second.id
    assert not second.replayed


def test_what_was_refused_uses_no_key_up(owner: User) -> None:
    def refused() -> str:
        submit(owner)
        raise QueueFull("full")

    with pytest.raises(QueueFull):
        once(owner, refused)
    assert not Key.objects.exists()
    assert not Execution.objects.exists()
    assert not once(owner, lambda: submit(owner), OTHER).replayed


def test_who_comes_second_takes_over_when_the_first_fails(owner: User) -> None:
    begun, fail = threading.Event(), threading.Event()

    def failing() -> str:
        begun.set()
        assert fail.wait(60)
        raise QueueFull("full")

    def first() -> None:
        try:
            once(owner, failing)
        finally:
            connections.close_all()

    def second() -> Made:
        try:
            return once(owner, lambda: submit(owner), OTHER)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        losing = pool.submit(first)
        assert begun.wait(60)
        winning = pool.submit(second)
        fail.set()
        assert not winning.result(60).replayed
        with pytest.raises(QueueFull):
            losing.result(60)


def age(hours: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE idempotency_key SET created_at = now() - make_interval(hours => %s)", [hours]
        )


def test_a_day_later_the_key_is_free(owner: User) -> None:
    first = once(owner, lambda: submit(owner))
    age(23)
    assert once(owner, never) == Made(first.id, replayed=True)
    assert services.forget_old() == 0
    age(25)
    second = once(owner, lambda: submit(owner), OTHER)
    assert (second.replayed, second.id == first.id) == (False, False)
    age(25)
    assert services.forget_old() == 1
    assert not Key.objects.exists()


def test_many_old_keys_go_in_batches(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO idempotency_key (owner_id, key, fingerprint, created_at, made) SELECT"
            " %s, n::text, '', now() - interval '2 days', '' FROM generate_series(1, 2500) n",
            [owner.pk],
        )
    monkeypatch.setattr(services, "MOST_FORGOTTEN", 1500)
    assert services.forget_old() == 2000
    assert services.forget_old() == 500


def test_a_prefetch_is_asked_for_once(owner: User, admin_user: User) -> None:
    client = APIClient()
    client.force_authenticate(admin_user)
    answers = [
        client.post(
            "/api/v1/images/prefetch/",
            {"image": "busybox"},
            format="json",
            headers={"Idempotency-Key": "k"},
        )
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[1].headers["Idempotent-Replay"] == "true"
    assert answers[0].headers["Location"] == answers[1].headers["Location"]
    assert Prefetch.objects.count() == 1


def test_a_rule_is_made_once(owner: User, admin_user: User) -> None:
    client = APIClient()
    client.force_authenticate(admin_user)
    asked = {"name": "no old python", "pattern": "docker.io/library/python:2*", "action": "refuse"}
    answers = [
        client.post("/api/v1/image-rules/", asked, format="json", headers={"Idempotency-Key": "k"})
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201], answers[1].content
    assert answers[0].json() == answers[1].json()
    assert Rule.objects.filter(name="no old python").count() == 1
    again = client.post("/api/v1/image-rules/", asked, format="json")
    assert (again.status_code, list(again.json()["fields"])) == (400, ["name"])


def test_a_token_is_made_once_and_its_secret_told_once(owner: User, admin_user: User) -> None:
    client = APIClient()
    client.force_authenticate(admin_user)
    first, second = (
        client.post(
            "/api/v1/tokens/", {"name": "ci"}, format="json", headers={"Idempotency-Key": "k"}
        )
        for _ in range(2)
    )
    assert (first.status_code, second.status_code) == (201, 201), second.content
    assert first.json()["token"].startswith("boxer_")
    assert second.json() == first.json() | {"token": None}
    assert Token.objects.filter(user=admin_user).count() == 1


# ── Over HTTP ──


@pytest.fixture
def api(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.base_url, timeout=120) as client:
        yield client


@pytest.fixture
def key() -> dict[str, str]:
    return {"Idempotency-Key": f"key {secrets.token_hex(8)}"}


@pytest.fixture
def body(busybox_reference: str) -> dict[str, Any]:
    mark = secrets.token_hex(8)
    return {"image": busybox_reference, "cmd": ["sh", "-c", "sleep 1; echo $0", mark]}


def executions(stack: Stack, body: dict[str, Any]) -> list[str]:
    sql = "SELECT exec_id FROM executions_execution WHERE cmd[4] = %s"
    return [row["exec_id"] for row in query(stack, sql, body["cmd"][3])]


def test_twenty_requests_at_once_run_once(
    stack: Stack, api: httpx.Client, key: dict[str, str], body: dict[str, Any]
) -> None:
    def ask(_: int) -> httpx.Response:
        return api.post("/run", json=body, headers=key)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, range(AT_ONCE)))
    assert {answer.status_code for answer in answers} == {200}, answers[0].text
    [exec_id] = executions(stack, body)
    assert {answer.json()["exec_id"] for answer in answers} == {exec_id}
    assert {answer.json()["stdout"] for answer in answers} == {f"{body['cmd'][3]}\n"}
    replays = [answer.headers.get("Idempotent-Replay") for answer in answers]
    assert (replays.count(None), replays.count("true")) == (1, AT_ONCE - 1)

    later = api.post("/run", json=body, headers=key)
    assert later.json() == answers[0].json()

    other = api.post("/run", json=body | {"env": ["A=b"]}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    elsewhere = api.post(EXECUTIONS, json=body, headers=key)
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (422, "idempotency_mismatch")


def test_a_submission_and_a_repetition_are_made_once(
    stack: Stack, api: httpx.Client, key: dict[str, str], body: dict[str, Any]
) -> None:
    first, second = (api.post(EXECUTIONS, json=body, headers=key) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202), second.text
    assert "Idempotent-Replay" not in first.headers
    assert second.headers["Idempotent-Replay"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert executions(stack, body) == [first.json()["exec_id"]]

    again = {"Idempotency-Key": secrets.token_hex(8)}
    route = f"{first.headers['Location']}rerun/"
    repeated = {api.post(route, headers=again).json()["exec_id"] for _ in range(2)}
    assert len(repeated) == 1
    assert len(executions(stack, body)) == 2

    address = first.headers["Location"]
    assert api.get(address, params={"wait": 30}).json()["status"] == "finished"
    assert api.delete(address).status_code == 204
    gone = api.post(EXECUTIONS, json=body, headers=key)
    assert (gone.status_code, gone.json()["code"]) == (409, "idempotency_gone")


def test_a_refused_request_may_be_put_right_with_its_key(
    api: httpx.Client, key: dict[str, str], body: dict[str, Any]
) -> None:
    wrong = api.post(EXECUTIONS, json=body | {"files": ["there/is/none"]}, headers=key)
    assert (wrong.status_code, wrong.json()["code"]) == (400, "file_not_found")
    assert api.post(EXECUTIONS, json=body, headers=key).status_code == 202


@pytest.mark.parametrize("value", [b"", b"x" * 256, b"caf\xe9", b"a\tb"])
def test_a_key_is_printable_ascii(api: httpx.Client, body: dict[str, Any], value: bytes) -> None:
    headers = [(b"Idempotency-Key", value)]
    for route in ("/run", EXECUTIONS):
        answer = api.post(route, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid"), answer.text
        assert list(answer.json()["fields"]) == ["Idempotency-Key"]
