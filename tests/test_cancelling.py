"""Cancelling while an image is pulled, how soon a cancelled run ends, and what staff may do."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fixtures_accounts import Account, make_accounts
from tests.registry import Registry
from tests.stack import Stack
from tests.stack_access import execution, marked_image, second_registry, until

EXECUTIONS = "/api/v1/executions/"


@pytest.fixture(scope="module")
def people(stack: Stack) -> dict[str, Account]:
    word = uuid.uuid4().hex[:6]
    groups = {"fay": [], "auditor": ["Auditors"], "operator": ["Operators"]}
    made = make_accounts(stack, **{f"{name}-{word}": given for name, given in groups.items()})
    return {name.split("-")[0]: account for name, account in made.items()}


@pytest.fixture
def fay(people: dict[str, Account]) -> Iterator[httpx.Client]:
    with people["fay"].client() as client:
        yield client


def submit(client: httpx.Client, image: str, *cmd: str) -> str:
    answer = client.post(EXECUTIONS, json={"image": image, "cmd": cmd})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["exec_id"])


def status(stack: Stack, exec_id: str) -> str:
    return str(execution(stack, exec_id)["status"])


def test_a_pull_is_given_up_when_its_run_is_cancelled(
    stack: Stack, registry: Registry, fay: httpx.Client, tmp_path: Path, busybox_reference: str
) -> None:
    with second_registry(registry, tmp_path) as slow:
        name = f"slow-{uuid.uuid4().hex[:6]}"
        slow.serve(marked_image(tmp_path / "layout", name), name)
        slow.hanging.add(f"/v2/{name}/manifests/latest")
        exec_id = submit(fay, f"{slow.address}/{name}", "true")
        assert slow.reached.wait(30)
        until(lambda: status(stack, exec_id) == "pulling", "it pulls")
        assert fay.post(f"{EXECUTIONS}{exec_id}/cancel/").status_code == 202
        until(lambda: status(stack, exec_id) == "cancelled", "it is cancelled", 20)
        assert execution(stack, exec_id)["started_at"] is None
    # All four workers are free again.
    after = [submit(fay, busybox_reference, "true") for _ in range(4)]
    until(lambda: {status(stack, one) for one in after} == {"finished"}, "others run")


def test_a_cancelled_run_ends_at_once(
    stack: Stack, fay: httpx.Client, busybox_reference: str
) -> None:
    exec_id = submit(fay, busybox_reference, "sleep", "55")
    until(lambda: status(stack, exec_id) == "running", "it runs")
    assert fay.post(f"{EXECUTIONS}{exec_id}/cancel/").status_code == 202
    until(lambda: status(stack, exec_id) == "cancelled", "it is cancelled")
    row = execution(stack, exec_id)
    # Within a second; the rest is for a machine that is busy with something else.
    assert (row["finished_at"] - row["cancel_requested_at"]).total_seconds() < 5


def test_who_may_see_all_may_not_change_all(
    stack: Stack, people: dict[str, Account], fay: httpx.Client, busybox_reference: str
) -> None:
    exec_id = submit(fay, busybox_reference, "sleep", "55")
    until(lambda: status(stack, exec_id) == "running", "it runs")
    with people["auditor"].client() as auditor:
        assert auditor.get(f"{EXECUTIONS}{exec_id}/").status_code == 200
        assert auditor.post(f"{EXECUTIONS}{exec_id}/cancel/").status_code in {403, 404}
        assert auditor.delete(f"{EXECUTIONS}{exec_id}/").status_code in {403, 404}
    assert status(stack, exec_id) == "running"
    with people["operator"].client() as operator:
        assert operator.post(f"{EXECUTIONS}{exec_id}/cancel/").status_code == 202
        until(lambda: status(stack, exec_id) == "cancelled", "the operator ends it")
        assert operator.delete(f"{EXECUTIONS}{exec_id}/").status_code == 204
    assert fay.get(f"{EXECUTIONS}{exec_id}/").status_code == 404
