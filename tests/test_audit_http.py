"""The audit log of a whole service: written by requests, chained by the keeper, killed or not."""

import uuid
from typing import Any

import httpx

from tests.stack import Stack, manage
from tests.stack_access import query, until, upload


def entries(stack: Stack, object_id: str) -> list[dict[str, Any]]:
    return query(stack, "SELECT * FROM audit_entry WHERE object_id = %s ORDER BY id", object_id)


def chained(stack: Stack, object_id: str) -> list[dict[str, Any]]:
    found = entries(stack, object_id)
    return found if found and all(entry["seq"] for entry in found) else []


def test_runs_and_downloads_are_written_down_and_chained(
    stack: Stack, busybox_reference: str
) -> None:
    status, answer = stack.run(image=busybox_reference, cmd=["true"])
    assert status == 200
    path = f"audited/{uuid.uuid4()}.txt"
    upload(stack, path, b"content")
    assert httpx.get(f"{stack.base_url}/files", params={"path": path}).content == b"content"
    [run] = until(lambda: chained(stack, answer["exec_id"]), "the run's entry is chained")
    assert (run["verb"], run["username"], run["address"]) == (
        "run_submitted",
        "anonymous",
        "127.0.0.1",
    )
    assert run["details"] == {"image": busybox_reference, "network": "none"}
    [download] = until(lambda: chained(stack, path), "the download's entry is chained")
    assert (download["verb"], download["details"]["bytes"]) == ("file_downloaded", 7)
    assert download["owner_id"] is None


def test_the_keeper_may_be_killed_and_nothing_is_lost(stack: Stack, busybox_reference: str) -> None:
    for _ in range(3):
        stack.part("keeper").kill()
        status, answer = stack.run(image=busybox_reference, cmd=["true"])
        assert status == 200
        until(lambda run=answer: chained(stack, run["exec_id"]), "the new keeper chains")  # type: ignore[misc]
    verified = manage("audit", "verify", home=stack.home)
    assert verified.returncode == 0, verified.stderr
    head = until((stack.home / "audit-head").read_text, "the home has the head")
    assert int(head.split(":")[0]) >= 3


def test_a_refused_run_leaves_no_entry(stack: Stack, busybox_reference: str) -> None:
    before = query(stack, "SELECT count(*) AS n FROM audit_entry WHERE verb = 'run_submitted'")
    status, _ = stack.run(image=busybox_reference, cmd=["true"], files=[f"absent/{uuid.uuid4()}"])
    assert status == 400
    after = query(stack, "SELECT count(*) AS n FROM audit_entry WHERE verb = 'run_submitted'")
    assert before == after
