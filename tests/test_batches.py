"""Many runs in one request, over HTTP, on a whole Boxer."""

import json
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.fixtures_accounts import Account
from tests.stack import Stack
from tests.stack_access import download, query, until, upload

BATCHES = "/api/v1/batches/"
LIMITS = {"memory_mb": 64, "wall_clock_secs": 30}


class Batches:
    def __init__(self, api: httpx.Client, image: str) -> None:
        self.api = api
        self.template = {"image": image, "limits": LIMITS}

    def submit(self, runs: list[dict[str, Any]], **more: Any) -> str:
        template = self.template | more.pop("template", {})
        answer = self.api.post(BATCHES, json={"template": template, "runs": runs, **more})
        assert answer.status_code == 202, answer.text
        batch_id: str = answer.json()["batch_id"]
        assert answer.headers["Location"] == f"{BATCHES}{batch_id}/"
        return batch_id

    def get(self, batch_id: str) -> dict[str, Any]:
        answer = self.api.get(f"{BATCHES}{batch_id}/")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def results(self, batch_id: str, **params: Any) -> list[dict[str, Any]]:
        answer = self.api.get(f"{BATCHES}{batch_id}/results/", params=params)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "application/jsonl"
        return [json.loads(line) for line in answer.text.splitlines()]

    def by_number(self, batch_id: str) -> list[dict[str, Any]]:
        return sorted(self.results(batch_id), key=lambda line: int(line["number"]))


@pytest.fixture
def api(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.base_url, timeout=120) as client:
        yield client


@pytest.fixture
def batches(api: httpx.Client, busybox_reference: str) -> Batches:
    return Batches(api, busybox_reference)


def shell(script: str, **more: Any) -> dict[str, Any]:
    return {"cmd": ["sh", "-c", script], **more}


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


# ── Runs of a template ──


def test_runs_share_a_template_and_change_it(stack: Stack, batches: Batches) -> None:
    path = f"in/{secrets.token_hex(6)}.txt"
    upload(stack, path, b"shared")
    script = f'cat /{path}; echo " $A $B" "$@"; cat'
    template = {"cmd": ["sh", "-c", script, "sh"], "files": [path], "env": ["A=1", "B=2"]}
    runs: list[dict[str, Any]] = [
        {"args": ["x", "y"]},
        {"stdin": "in"},
        {"env": ["B=3"], "labels": {"own": "yes"}},
        {"cmd": ["false"]},
    ]
    batch_id = batches.submit(runs, template=template | {"labels": {"of": "all"}})
    found = batches.by_number(batch_id)
    assert [line["stdout"] for line in found] == [
        "shared 1 2 x y\n",
        "shared 1 2\nin",
        "shared 1 3\n",
        "",
    ]
    assert [line["verdict"] for line in found] == ["passed"] * 3 + ["failed"]
    shown = batches.api.get(f"/api/v1/executions/{found[2]['exec_id']}/").json()
    assert shown["labels"] == {"of": "all", "own": "yes"}
    progress = batches.get(batch_id)
    assert (progress["ended"], progress["total"]) == (True, 4)
    assert progress["statuses"] == {"finished": 4}
    assert progress["outcomes"] == {"exited": 4}
    assert progress["verdicts"] == {"passed": 3, "failed": 1}
    rows = query(
        stack,
        "SELECT DISTINCT sha256 FROM executions_executioninput WHERE path = %s",
        path,
    )
    assert len(rows) == 1
    assert download(stack, path)[0] == 404  # the runs didn't persist their inputs


def test_results_come_in_the_order_in_which_runs_end_while_others_run(batches: Batches) -> None:
    batch_id = batches.submit([shell("sleep 4; echo late"), shell("echo soon")])
    early = until(lambda: batches.results(batch_id, wait=1), "a result")
    if len(early) == 1:
        assert early[0]["stdout"] == "soon\n"
    assert [line["number"] for line in batches.results(batch_id)] == [1, 0]
    assert batches.results(batch_id, wait=0) == batches.results(batch_id)


def test_a_batch_is_taken_whole_or_not_at_all(
    stack: Stack, batches: Batches, busybox_reference: str
) -> None:
    mark = secrets.token_hex(8)
    runs: list[dict[str, Any]] = [shell(f"echo {mark}"), shell(f"echo {mark}", files=["no/file"])]
    body = {"template": batches.template, "runs": runs}
    answer = refused(batches.api.post(BATCHES, json=body), 400)
    assert answer["code"] == "file_not_found"
    sql = "SELECT 1 FROM executions_execution WHERE cmd[3] LIKE %s"
    assert query(stack, sql, f"%{mark}%") == []
    for wrong, field in (
        ({"cmd": []}, "runs.0.cmd"),
        ({"cmd": ["true"], "compare": "like"}, "runs.0.compare"),
        ({"cmd": ["true"], "what": 1}, "runs.0.what"),
        ({"cmd": ["true"], "expected_stdout": "(", "compare": "regex"}, "runs.0.expected_stdout"),
    ):
        answer = refused(batches.api.post(BATCHES, json=body | {"runs": [wrong]}), 400)
        assert list(answer["fields"]) == [field], answer
    wrong_runs: list[Any] = [[], [shell("true")] * 501, {}, ["x"]]
    for given in wrong_runs:
        assert refused(batches.api.post(BATCHES, json=body | {"runs": given}), 400)


def test_a_batch_is_repeated_safely(stack: Stack, batches: Batches) -> None:
    mark = secrets.token_hex(8)
    body = {"template": batches.template, "runs": [shell(f"echo {mark}")] * 3}
    headers = {"Idempotency-Key": mark}

    def ask(_: int) -> str:
        answer = batches.api.post(BATCHES, json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["batch_id"])

    with ThreadPoolExecutor(5) as pool:
        assert len(set(pool.map(ask, range(5)))) == 1
    sql = "SELECT 1 FROM executions_execution WHERE cmd[3] LIKE %s"
    assert len(query(stack, sql, f"%{mark}%")) == 3


# ── Verdicts ──


def test_what_is_printed_is_compared(batches: Batches) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        (shell("echo 3", expected_stdout="3\n"), "passed"),
        (shell("echo 3", expected_stdout="3"), "failed"),
        (shell("echo '3  '; echo", expected_stdout="3", compare="trim"), "passed"),
        (shell("echo ' 3'", expected_stdout="3", compare="trim"), "failed"),
        (shell("echo 345", expected_stdout=r"\d+\n", compare="regex"), "passed"),
        (shell("echo a345", expected_stdout=r"\d+\n", compare="regex"), "failed"),
        (shell("true", expected_stdout=""), "passed"),
        (shell("echo 3; exit 1", expected_stdout="3\n"), "failed"),
        (shell("sleep 9", expected_stdout="", limits={"wall_clock_secs": 1}), "timed_out"),
        (shell("x=a; while :; do x=$x$x; done", limits={"memory_mb": 16}), "out_of_memory"),
        (
            shell(
                "head -c 60 /dev/zero | tr '\\0' a",
                expected_stdout="(a+)+b",
                compare="regex",
            ),
            "error",
        ),
    ]
    batch_id = batches.submit([case for case, _ in cases])
    found = batches.by_number(batch_id)
    assert [line["verdict"] for line in found] == [verdict for _, verdict in cases], found
    assert found[-1]["remark"] == "the regular expression failed or took too long"
    assert sum(batches.get(batch_id)["verdicts"].values()) == len(cases)


def test_what_is_expected_never_enters_a_sandbox(stack: Stack, batches: Batches) -> None:
    secret = f"expected-{secrets.token_hex(8)}"
    script = "cat /proc/*/environ /proc/*/cmdline; cat; grep -r expected- /tmp /build /etc"
    batch_id = batches.submit([shell(script, expected_stdout=secret)], entrypoint=shell("true"))
    [line] = batches.results(batch_id)
    assert line["status"] == "finished"
    assert secret not in line["stdout"]
    assert query(stack, "SELECT 1 FROM batches_case WHERE expected = %s", secret)


# ── An entrypoint ──


def test_what_the_entrypoint_builds_is_run_by_the_others(stack: Stack, batches: Batches) -> None:
    path = f"src/{secrets.token_hex(6)}.sh"
    upload(stack, path, b"#!/bin/sh\nread a b\necho $((a + b)) $1 $TOKEN\n")
    build = f"mkdir /output/bin; cp /{path} /output/bin/sum; echo built"
    batch_id = batches.submit(
        [
            {"stdin": "1 2\n", "args": ["x"], "expected_stdout": "3 x hush\n", "files": [path]},
            {"stdin": "2 3\n", "expected_stdout": "6", "compare": "trim"},
            shell("echo > /build/bin/sum"),
        ],
        template={"cmd": ["/build/bin/sum"], "env": ["TOKEN=hush"]},
        entrypoint=shell(build, files=[path]),
    )
    assert batches.get(batch_id)["entrypoint"].startswith("boxer-")
    found = batches.by_number(batch_id)
    assert [line["verdict"] for line in found] == ["passed", "failed", "failed"], found
    assert "hush" not in json.dumps(query(stack, "SELECT env FROM executions_execution"))
    waits = "SELECT 1 FROM batches_case WHERE request IS NOT NULL AND execution_id IS NOT NULL"
    assert query(stack, waits) == []
    assert query(stack, "SELECT 1 FROM batches_heldinput WHERE path = %s", path) == []


def test_nothing_starts_when_the_entrypoint_fails(batches: Batches) -> None:
    batch_id = batches.submit([shell("echo never")] * 3, entrypoint=shell("exit 3"))
    found = batches.by_number(batch_id)
    assert [(line["status"], line["exec_id"]) for line in found] == [("skipped", None)] * 3
    progress = batches.get(batch_id)
    assert (progress["phase"], progress["ended"]) == ("skipped", True)
    assert progress["statuses"] == {"skipped": 3}
    assert progress["error"].endswith("didn't succeed: exited with 3")
    assert found[0]["error"] == progress["error"]


def test_what_would_refuse_a_run_refuses_the_batch_before_it_builds(batches: Batches) -> None:
    body = {"template": batches.template, "entrypoint": shell("true")}
    runs: list[dict[str, Any]] = [shell("true", files=["there/is/none"])]
    assert refused(batches.api.post(BATCHES, json=body | {"runs": runs}), 400)
    runs = [shell("true", files=["build/x"])]
    answer = refused(batches.api.post(BATCHES, json=body | {"runs": runs}), 400)
    assert list(answer["fields"]) == ["runs.0.files"]
    answer = refused(
        batches.api.post(BATCHES, json=body | {"runs": [shell("true")], "build_dir": "/proc"}), 400
    )
    assert list(answer["fields"]) == ["build_dir"]


# ── Cancelling, listing ──


def test_a_cancelled_batch_ends(batches: Batches) -> None:
    batch_id = batches.submit([shell("sleep 25")] * 8)
    route = f"{BATCHES}{batch_id}/cancel/"
    assert batches.api.post(route).status_code == 202
    assert {line["status"] for line in batches.results(batch_id)} == {"cancelled"}
    assert batches.get(batch_id)["verdicts"] == {"error": 8}
    assert refused(batches.api.post(route), 409)["code"] == "has_ended"


def test_a_batch_that_is_cancelled_while_it_builds_starts_nothing(batches: Batches) -> None:
    batch_id = batches.submit([shell("echo never")] * 2, entrypoint=shell("sleep 25"))
    assert batches.api.post(f"{BATCHES}{batch_id}/cancel/").status_code == 202
    assert {line["status"] for line in batches.results(batch_id)} == {"cancelled"}
    entrypoint = batches.get(batch_id)["entrypoint"]
    shown = batches.api.get(f"/api/v1/executions/{entrypoint}/", params={"wait": 30}).json()
    assert shown["status"] == "cancelled"


def test_batches_are_listed_newest_first(batches: Batches) -> None:
    made = [batches.submit([shell("true")]) for _ in range(2)]
    page = batches.api.get(BATCHES).json()
    assert [batch["batch_id"] for batch in page["results"][:2]] == made[::-1]
    older = batches.api.get(BATCHES, params={"cursor": made[1]}).json()
    assert older["results"][0]["batch_id"] == made[0]
    assert refused(batches.api.get(BATCHES, params={"cursor": "x"}), 400)


def test_a_batch_is_its_owners(batches: Batches, accounts: dict[str, Account]) -> None:
    batch_id = batches.submit([shell("true")])
    with accounts["dave"].client() as dave:
        for method, below in (("GET", ""), ("GET", "results/"), ("POST", "cancel/")):
            answer = dave.request(method, f"{BATCHES}{batch_id}/{below}")
            assert refused(answer, 404)["code"] == "not_found"
        assert batch_id not in dave.get(BATCHES).text
    with accounts["auditor"].client() as auditor:
        assert auditor.get(f"{BATCHES}{batch_id}/").status_code == 200
        assert auditor.post(f"{BATCHES}{batch_id}/cancel/").status_code == 403
