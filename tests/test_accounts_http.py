"""Logins over HTTP: tokens both ways, sessions, anonymous, and the first administrator."""

import re
import uuid

import httpx
import pytest
from boxer import BoxerClient

from tests.environment import new_home
from tests.fixtures_accounts import PASSWORD, Account, make_accounts
from tests.stack import Stack, manage
from tests.stack_access import execution, query

MADE = re.compile(r"^Made the user admin with the password (\S+)$", re.MULTILINE)


def headers(address: str, **more: str) -> dict[str, str]:
    """As a proxy tells them: nobody else is held up by what fails here."""
    return {"X-Forwarded-For": address, **more}


def test_a_bearer_token_runs_as_its_user(
    stack: Stack, accounts: dict[str, Account], busybox_reference: str
) -> None:
    with accounts["carol"].client() as client:
        ran = client.post("/run", json={"image": busybox_reference, "cmd": ["true"]})
    assert ran.status_code == 200
    exec_id = ran.json()["exec_id"]
    assert execution(stack, exec_id)["owner_id"] == accounts["carol"].user_id
    [entry] = query(stack, "SELECT * FROM audit_entry WHERE object_id = %s", exec_id)
    assert (entry["username"], entry["token"]) == ("carol", "token of carol")


def test_the_public_client_works_with_the_token_in_its_url(
    stack: Stack, accounts: dict[str, Account], busybox_reference: str
) -> None:
    url = stack.base_url.replace("http://", f"http://token:{accounts['dave'].token}@")
    with BoxerClient(url) as client:
        result = client.run(image=busybox_reference, cmd=["echo", "hi"])
    assert result.stdout == "hi\n"
    assert execution(stack, result.exec_id)["owner_id"] == accounts["dave"].user_id


def test_a_browser_runs_with_its_session_and_csrf_token_alone(
    stack: Stack, accounts: dict[str, Account], busybox_reference: str
) -> None:
    body = {"image": busybox_reference, "cmd": ["true"]}
    with accounts["carol"].browser() as browser:
        ran = browser.post("/run", json=body)
        assert ran.status_code == 200
        owner = execution(stack, ran.json()["exec_id"])["owner_id"]
        assert owner == accounts["carol"].user_id
        path = f"session/{uuid.uuid4()}"
        stored = browser.post("/files", data={"path": path}, files={"file": b"x" * 100_000})
        assert stored.status_code == 200, stored.text
        del browser.headers["X-CSRFToken"]
        refused = browser.post("/run", json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "csrf_failed")
        refused = browser.post("/files", data={"path": path}, files={"file": b"y"})
        assert (refused.status_code, refused.json()["code"]) == (403, "csrf_failed")
        assert browser.get("/files", params={"path": path}).content == b"x" * 100_000


@pytest.mark.parametrize(
    "sent",
    [
        {"Authorization": "Bearer boxer_0123456789"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic dG9rZW46bm9uZQ=="},
        {"Authorization": "Digest x"},
        {"Authorization": "Bearer \udcff"},
        {"Cookie": "boxer_session=0123456789abcdefghij"},
    ],
)
def test_wrong_credentials_are_never_taken_for_none(stack: Stack, sent: dict[str, str]) -> None:
    raw = [(n.encode(), v.encode("utf-8", "surrogateescape")) for n, v in sent.items()]
    told = [(b"X-Forwarded-For", b"192.0.2.9"), *raw]
    response = httpx.get(f"{stack.base_url}/files", params={"path": "a"}, headers=told)
    assert response.status_code == 401, response.text
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="boxer"'
    assert response.json()["code"] in {"bad_token", "session_ended"}


def test_tokens_are_made_listed_and_revoked(accounts: dict[str, Account]) -> None:
    with accounts["dave"].client() as client:
        made = client.post("/api/v1/tokens/", json={"name": "ci", "days": 1})
        assert made.status_code == 201
        assert made.headers["Cache-Control"] == "no-store"
        token = made.json()
        listed = client.get("/api/v1/tokens/")
        assert token["token"] not in listed.text
        assert token["id"] in [each["id"] for each in listed.json()["results"]]
        own = {"Authorization": f"Bearer {token['token']}"}
        # It lives a day: none that it makes lives longer.
        longer = client.post("/api/v1/tokens/", json={"name": "more", "days": 2}, headers=own)
        assert (longer.status_code, longer.json()["code"]) == (400, "invalid")
        child = client.post("/api/v1/tokens/", json={"name": "same"}, headers=own).json()
        assert child["expires_at"] == token["expires_at"]
        assert client.delete(f"/api/v1/tokens/{token['id']}/").status_code == 204
        gone = client.get("/api/v1/tokens/", headers={**own, "X-Forwarded-For": "192.0.2.10"})
        assert gone.status_code == 401


def test_anonymous_has_no_tokens(stack: Stack) -> None:
    response = httpx.get(f"{stack.base_url}/api/v1/tokens/")
    assert (response.status_code, response.json()["code"]) == (403, "permission_denied")


def test_the_command_makes_lists_and_revokes(stack: Stack, accounts: dict[str, Account]) -> None:
    made = manage("token", "create", "carol", "--name", "cron", "--days", "3", home=stack.home)
    secret = made.stdout.strip()
    assert secret.startswith("boxer_")
    own = {"Authorization": f"Bearer {secret}"}
    assert httpx.get(f"{stack.base_url}/api/v1/tokens/", headers=own).status_code == 200
    listed = manage("token", "list", "carol", home=stack.home).stdout
    assert secret not in listed
    [line] = [line for line in listed.splitlines() if "\tcron\t" in line]
    assert "used never" not in line
    assert manage("token", "revoke", line.split()[0], home=stack.home).returncode == 0
    gone = httpx.get(f"{stack.base_url}/api/v1/tokens/", headers=headers("192.0.2.11", **own))
    assert gone.status_code == 401


def test_the_first_start_makes_an_admin_who_can_log_in(stack: Stack) -> None:
    [password] = MADE.findall(stack.log)
    with httpx.Client(base_url=stack.base_url) as browser:
        asked = browser.get("/admin/", follow_redirects=True)
        assert (asked.url.path, asked.status_code) == ("/admin/login/", 200)
        form = {"username": "admin", "password": password, "next": "/admin/"}
        csrf = {"X-CSRFToken": browser.cookies["boxer_csrf"]}
        done = browser.post("/login", data=form, headers=csrf)
        assert (done.status_code, done.headers["Location"]) == (302, "/admin/")
        index = browser.get("/admin/")
        assert index.status_code == 200
        assert "/admin/accounts/token/" in index.text
    everything = [file for file in stack.home.rglob("*") if file.is_file()]
    logs = [file for file in everything if file.suffix == ".log" and file != stack.log_file]
    assert logs, "PostgreSQL's"
    assert not [file for file in logs if password.encode() in file.read_bytes()]


@pytest.mark.slow
def test_without_anonymous_everybody_is_asked_and_admin_is_made_once() -> None:
    home = new_home()
    env = {"BOXER_ANONYMOUS": "0", "BOXER_POOL_SIZE": "0"}
    with Stack("--workers", "1", "--listen", "0.0.0.0:0", home=home, env=env) as strict:
        url = strict.base_url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        refused = httpx.get(f"{url}/files", params={"path": "a"})
        assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
        assert httpx.get(f"{url}/healthz").status_code == 200
        strict.base_url = url
        account = make_accounts(strict, erin=[])["erin"]
        with account.client() as client:
            assert client.get("/api/v1/tokens/").status_code == 200
        assert MADE.search(strict.log)
    with Stack("--workers", "1", home=home, env=env) as again:
        assert not MADE.search(again.log)


def test_a_password_is_never_a_token(stack: Stack, accounts: dict[str, Account]) -> None:
    response = httpx.get(
        f"{stack.base_url}/api/v1/tokens/",
        auth=("carol", PASSWORD),
        headers=headers("192.0.2.12"),
    )
    assert response.status_code == 401
