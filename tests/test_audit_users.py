"""The audit log of a whole service with real users: who logged in, and who looked at whose runs."""

import uuid
from typing import Any

import httpx
import pytest

from tests.fixtures_accounts import Account, make_accounts
from tests.stack import Stack
from tests.stack_access import query


@pytest.fixture(scope="module")
def people(stack: Stack) -> dict[str, Account]:
    word = uuid.uuid4().hex[:6]
    made = make_accounts(stack, **{f"erin-{word}": [], f"watcher-{word}": ["Auditors"]})
    return {name.split("-")[0]: account for name, account in made.items()}


def entries(stack: Stack, account: Account, verb: str) -> list[dict[str, Any]]:
    sql = "SELECT * FROM audit_entry WHERE user_id = %s AND verb = %s ORDER BY id"
    return query(stack, sql, account.user_id, verb)


def test_logins_logouts_and_tokens_are_written_down(
    stack: Stack, people: dict[str, Account]
) -> None:
    erin = people["erin"]
    with erin.browser() as browser:
        made = browser.post("/api/v1/tokens/", json={"name": "of the browser"})
        assert made.status_code == 201, made.text
        assert browser.delete(f"/api/v1/tokens/{made.json()['id']}/").status_code == 204
        assert browser.post("/logout").status_code == 302
    for verb in ("login", "token_created", "token_revoked", "logout"):
        entry = entries(stack, erin, verb)[-1]
        assert (entry["username"], entry["address"]) == (erin.name, "127.0.0.1")
        assert made.json()["token"] not in str(entry)


def test_staff_who_look_at_others_runs_and_files_are_written_down(
    stack: Stack, people: dict[str, Account], busybox_reference: str
) -> None:
    erin, watcher = people["erin"], people["watcher"]
    path = f"seen/{uuid.uuid4()}"
    with erin.client() as client:
        run = {"image": busybox_reference, "cmd": ["echo", "hi"]}
        exec_id = client.post("/run", json=run).json()["exec_id"]
        assert client.post("/files", data={"path": path}, files={"file": b"x"}).status_code == 200
        assert client.get(f"/api/v1/executions/{exec_id}/").status_code == 200
    assert entries(stack, erin, "run_viewed") == [], "nobody records people reading their own"
    with watcher.client() as client:
        for _ in range(3):
            assert client.get(f"/api/v1/executions/{exec_id}/").status_code == 200
        assert client.get(f"/api/v1/executions/{exec_id}/stdout/").content == b"hi\n"
        assert client.get("/api/v1/executions/", params={"owner": erin.name}).status_code == 200
        found = client.get("/files", params={"path": path})
    looks = entries(stack, watcher, "run_viewed")
    assert {look["object_id"] for look in looks} == {exec_id}
    assert [look["details"]["path"].rstrip("/").rsplit("/", 1)[1] for look in looks] == [
        exec_id,
        "stdout",
    ]
    for look in looks:
        assert (look["owner_id"], look["token"]) == (erin.user_id, f"token of {watcher.name}")
    assert entries(stack, watcher, "runs_listed")
    downloads = entries(stack, watcher, "file_downloaded")
    assert [one["owner_id"] for one in downloads] == [erin.user_id] * (found.status_code == 200)


def test_a_token_that_there_is_not_is_counted(stack: Stack) -> None:
    bad = {"Authorization": "Bearer nothing", "X-Forwarded-For": "198.51.100.77"}
    assert httpx.get(f"{stack.base_url}/api/v1/tokens/", headers=bad).status_code == 401
    rows = query(
        stack,
        "SELECT 1 FROM audit_failure WHERE verb = 'token_failed' UNION ALL"
        " SELECT 1 FROM audit_entry WHERE verb = 'token_failed'",
    )
    assert rows
