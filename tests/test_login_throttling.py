"""Failed logins and tokens are held up; timing tells nobody who exists; whose address counts."""

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import Any

import pytest
from django.contrib.auth import get_user_model, hashers
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, override_settings

from boxer_site.middleware import ClientAddress
from executions.accounts import services, throttling
from executions.accounts.models import Attempts
from executions.errors import TooManyFailures

PASSWORD = "correct horse battery"
MOST = throttling.NAME_AND_ADDRESS.failures


def log_in(client: Client, name: str, password: str, address: str) -> Any:
    form = {"username": name, "password": password}
    return client.post("/login", form, REMOTE_ADDR=address)


@pytest.fixture
def with_password(alice: User) -> User:
    alice.set_password(PASSWORD)
    alice.save()
    return alice


@pytest.fixture(autouse=True)
def cheap_hashes(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.mark.django_db
def test_after_some_failures_an_address_waits_and_others_do_not(
    client: Client, with_password: User
) -> None:
    for _ in range(MOST):
        assert log_in(client, "alice", "wrong", "192.0.2.1").status_code == 200
    held = log_in(client, "alice", PASSWORD, "192.0.2.1")
    assert held.status_code == 429
    assert 0 < int(held["Retry-After"]) <= throttling.NAME_AND_ADDRESS.secs
    assert "Too many failed attempts" in held.content.decode()
    assert log_in(client, "alice", PASSWORD, "192.0.2.2").status_code == 302
    Attempts.objects.update(until="2020-01-01T00:00:00Z")
    assert log_in(client, "alice", PASSWORD, "192.0.2.1").status_code == 302


@pytest.mark.django_db
def test_a_success_starts_the_count_anew(client: Client, with_password: User) -> None:
    for _ in range(3):
        for _ in range(MOST - 1):
            assert log_in(client, "alice", "wrong", "192.0.2.1").status_code == 200
        assert log_in(client, "alice", PASSWORD, "192.0.2.1").status_code == 302


@pytest.mark.django_db
def test_many_addresses_get_one_attempt_each_at_a_name(
    client: Client, with_password: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttling, "NAME", throttling.Limit(5, 3600))
    for last in range(1, 8):
        assert log_in(client, "alice", "wrong", f"192.0.2.{last}").status_code == 200
        if last > 5:
            assert log_in(client, "alice", "wrong", f"192.0.2.{last}").status_code == 429
    assert log_in(client, "alice", PASSWORD, "198.51.100.1").status_code == 302


@pytest.mark.django_db
def test_one_address_trying_many_names_waits_and_fills_no_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(throttling, "ADDRESS", throttling.Limit(5, 300))
    for number in range(5):
        throttling.Login(name=f"user{number}", address="192.0.2.1").begin()
    before = Attempts.objects.count()
    for number in range(20):
        with pytest.raises(TooManyFailures):
            throttling.Login(name=f"other{number}", address="192.0.2.1").begin()
        if number < 5:
            throttling.count_bad_token(address="192.0.2.3", token_key=f"{number}")
            continue
        with pytest.raises(TooManyFailures):
            throttling.count_bad_token(address="192.0.2.3", token_key=f"{number}")
    assert Attempts.objects.count() <= before + 1 + 5


@pytest.mark.django_db(transaction=True)
def test_attempts_at_once_do_not_pass_the_limit() -> None:
    def attempt(_: int) -> bool:
        try:
            throttling.Login(name="alice", address="192.0.2.1").begin()
        except TooManyFailures:
            return False
        else:
            return True
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        allowed = list(pool.map(attempt, range(40)))
    assert sum(allowed) == MOST


@pytest.mark.django_db
def test_wrong_tokens_are_held_up_and_right_ones_never(client: Client, alice: User) -> None:
    _, secret = services.create_token(user_id=alice.pk, name="ci")
    path = "/api/v1/tokens/"
    wrong, right = ({"Authorization": f"Bearer {one}"} for one in (secret[:-1] + "x", secret))
    found = [
        client.get(path, headers=wrong, REMOTE_ADDR="192.0.2.1").status_code
        for _ in range(MOST + 2)
    ]
    assert found == [401] * MOST + [429] * 2
    held = client.get(path, headers=wrong, REMOTE_ADDR="192.0.2.1")
    assert held.json()["code"] == "too_many_failures"
    assert int(held["Retry-After"]) > 0
    for address in ("192.0.2.1", "192.0.2.2"):
        assert client.get(path, headers=right, REMOTE_ADDR=address).status_code == 200


@pytest.mark.django_db
def test_a_login_does_the_same_work_whoever_exists(
    client: Client, with_password: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_user_model().objects.create_user("idle", password=PASSWORD, is_active=False)
    get_user_model().objects.create_user("nopassword")
    hashed: list[str] = []
    encode = hashers.MD5PasswordHasher.encode

    def counting(self: Any, password: str, salt: str) -> str:
        hashed.append(password)
        return encode(self, password, salt)

    monkeypatch.setattr(hashers.MD5PasswordHasher, "encode", counting)
    work, answers = {}, set()
    for name in ("alice", "idle", "nopassword", "nobody"):
        hashed.clear()
        response = log_in(client, name, "wrong", "192.0.2.1")
        work[name] = len(hashed)
        answers.add(response.content.decode().replace(f'value="{name}"', ""))
        assert response.status_code == 200
    assert set(work.values()) == {1}, work
    hashed.clear()
    assert log_in(client, "idle", PASSWORD, "192.0.2.1").status_code == 200
    assert len(hashed) == 1
    texts = {text.split("<form method", 1)[1].split("csrfmiddleware")[0] for text in answers}
    assert len(texts) == 1


def test_an_ipv6_host_is_its_network() -> None:
    same = {throttling.network_of(f"2001:db8::{part}") for part in ("1", "ffff:1", "2%eth0")}
    assert same == {"2001:db8::/64"}
    assert throttling.network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert throttling.network_of("") == ""


PROXIES = (ip_network("10.0.0.0/8"), ip_network("127.0.0.1"))


@pytest.mark.parametrize(
    ("peer", "told", "client"),
    [
        ("192.0.2.1", "198.51.100.1", "192.0.2.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::ffff:10.1.1.1", "198.51.100.1", "198.51.100.1"),
        # What the client wrote itself stands before what the proxy wrote.
        ("127.0.0.1", "203.0.113.9, 198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "203.0.113.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("127.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_the_client_is_whom_a_listed_proxy_names(peer: str, told: str, client: str) -> None:
    seen: list[str] = []

    def note(request: HttpRequest) -> HttpResponse:
        seen.append(request.META["REMOTE_ADDR"])
        return HttpResponse()

    headers = {"X-Forwarded-For": told} if told else {}
    request = RequestFactory().get("/", REMOTE_ADDR=peer, headers=headers)
    with override_settings(BOXER_TRUSTED_PROXIES=PROXIES):
        ClientAddress(note)(request)
    assert seen == [client]
    request = RequestFactory().get("/", REMOTE_ADDR=peer, headers=headers)
    with override_settings(BOXER_TRUSTED_PROXIES=()):
        ClientAddress(note)(request)
    assert seen[1] == peer


@pytest.mark.parametrize(("peer", "believed"), [("10.0.0.1", True), ("198.51.100.7", False)])
def test_only_a_listed_proxy_is_believed_about_https(peer: str, believed: bool) -> None:
    seen: list[bool] = []

    def note(request: HttpRequest) -> HttpResponse:
        seen.append("X-Forwarded-Proto" in request.headers)
        return HttpResponse()

    headers = {"X-Forwarded-Proto": "https"}
    request = RequestFactory().get("/", REMOTE_ADDR=peer, headers=headers)
    with override_settings(BOXER_TRUSTED_PROXIES=PROXIES):
        ClientAddress(note)(request)
    assert seen == [believed]
