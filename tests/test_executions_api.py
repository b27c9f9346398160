"""Runs that outlive their request, over HTTP, on a whole Boxer."""

import base64
import io
import json
import secrets
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.stack import Stack
from tests.stack_access import download, query, until, upload

EXECUTIONS = "/api/v1/executions/"
LIMITS = {"memory_mb": 64, "wall_clock_secs": 60}


@pytest.fixture
def api(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.base_url, timeout=60) as client:
        yield client


class Runs:
    def __init__(self, api: httpx.Client, image: str) -> None:
        self.api = api
        self.image = image

    def submit(self, *cmd: str, **more: Any) -> str:
        body = {"image": self.image, "cmd": cmd, "limits": LIMITS, **more}
        answer = self.api.post(EXECUTIONS, json=body)
        assert answer.status_code == 202, answer.text
        exec_id: str = answer.json()["exec_id"]
        assert answer.headers["Location"] == f"{EXECUTIONS}{exec_id}/"
        return exec_id

    def shell(self, script: str, **more: Any) -> str:
        return self.submit("sh", "-c", script, **more)

    def get(self, exec_id: str, wait: int = 0) -> dict[str, Any]:
        answer = self.api.get(f"{EXECUTIONS}{exec_id}/", params={"wait": wait})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ended(self, exec_id: str) -> dict[str, Any]:
        def over() -> dict[str, Any] | None:
            found = self.get(exec_id, wait=30)
            return found if found["status"] in {"finished", "cancelled"} else None

        found: dict[str, Any] = until(over, f"{exec_id} has ended", 60)
        return found

    def running(self, exec_id: str) -> None:
        until(lambda: self.get(exec_id)["status"] == "running", f"{exec_id} runs")

    def bytes_of(self, exec_id: str, name: str = "stdout", **headers: str) -> httpx.Response:
        return self.api.get(f"{EXECUTIONS}{exec_id}/{name}/", headers=headers)

    def post(self, exec_id: str, action: str) -> httpx.Response:
        return self.api.post(f"{EXECUTIONS}{exec_id}/{action}/")


@pytest.fixture
def runs(api: httpx.Client, busybox_reference: str) -> Runs:
    return Runs(api, busybox_reference)


def code(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["code"])


# ── Submit, wait, read ──


def test_a_run_is_submitted_waited_for_and_read(runs: Runs) -> None:
    exec_id = runs.shell("printf out; printf err >&2; exit 3", labels={"team": "a"}, priority=5)
    found = runs.ended(exec_id)
    assert (found["status"], found["outcome"], found["exit_code"]) == ("finished", "exited", 3)
    assert (found["labels"], found["priority"], found["owner"]) == ({"team": "a"}, 5, "anonymous")
    assert found["limits"]["memory_mb"] == 64
    assert runs.bytes_of(exec_id).content == b"out"
    assert runs.bytes_of(exec_id, "stderr").content == b"err"


def test_output_is_bytes_and_can_be_had_in_part(runs: Runs) -> None:
    exec_id = runs.shell(r"printf '\000\377abc'")
    runs.ended(exec_id)
    whole = runs.bytes_of(exec_id)
    assert (whole.status_code, whole.content) == (200, b"\x00\xffabc")
    part = runs.bytes_of(exec_id, Range="bytes=1-2")
    assert (part.status_code, part.content) == (206, b"\xffa")
    assert part.headers["Content-Range"] == "bytes 1-2/5"
    assert code(runs.bytes_of(exec_id, Range="bytes=9-"), 416) == "range_not_satisfiable"


def test_what_a_run_has_printed_so_far_can_be_read(runs: Runs) -> None:
    exec_id = runs.shell("echo early; sleep 50")
    runs.running(exec_id)
    until(lambda: runs.bytes_of(exec_id).content == b"early\n", "it shows")
    assert runs.bytes_of(exec_id, Range="bytes=0-1").content == b"ea"
    assert runs.post(exec_id, "cancel").status_code == 202
    runs.ended(exec_id)


def test_a_stream_without_a_word_is_answered_while_the_run_goes_on(runs: Runs) -> None:
    exec_id = runs.shell("sleep 50")
    runs.running(exec_id)
    assert runs.bytes_of(exec_id, "stderr").content == b""
    assert runs.get(exec_id)["status"] == "running"
    runs.post(exec_id, "cancel")


def test_a_wait_that_is_over_tells_how_it_stands(runs: Runs) -> None:
    exec_id = runs.shell("sleep 50")
    assert runs.get(exec_id, wait=1)["status"] in {"queued", "pulling", "running"}
    runs.post(exec_id, "cancel")


# ── Standard input ──


def test_standard_input_reaches_the_program(runs: Runs, stack: Stack) -> None:
    content = secrets.token_bytes(300_000)
    given = base64.b64encode(content).decode()
    exec_id = runs.submit("cat", stdin=given, stdin_encoding="base64")
    assert runs.ended(exec_id)["outcome"] == "exited"
    assert runs.bytes_of(exec_id).content == content
    _, answer = stack.run(image=runs.image, cmd=["cat"], stdin="first\nsecond ü\n")
    assert answer["stdout"] == "first\nsecond ü\n"


def test_a_program_that_reads_nothing_of_it_or_a_part_ends_all_the_same(runs: Runs) -> None:
    much = "x" * 900_000
    unread = runs.submit("true", stdin=much)
    part = runs.shell("head -c 5; exec <&-; sleep 1", stdin=much)
    assert runs.ended(unread)["exit_code"] == 0
    assert runs.ended(part)["exit_code"] == 0
    assert runs.bytes_of(part).content == b"xxxxx"


def test_without_any_there_is_an_end_at_once(runs: Runs) -> None:
    exec_id = runs.submit("cat")
    assert runs.ended(exec_id)["exit_code"] == 0


# ── Lists ──


def test_lists_are_newest_first_and_go_on_by_cursor(runs: Runs) -> None:
    mark = secrets.token_hex(8)
    made = [runs.submit("true", labels={"mark": mark}) for _ in range(5)]
    seen: list[str] = []
    query_: dict[str, Any] = {"label": f"mark={mark}", "limit": 2}
    while True:
        answer = runs.api.get(EXECUTIONS, params=query_).json()
        seen += [one["exec_id"] for one in answer["results"]]
        if answer["next"] is None:
            break
        query_["cursor"] = answer["next"]
    assert seen == made[::-1]
    assert len(runs.api.get(EXECUTIONS, params={"limit": 3}).json()["results"]) == 3


def test_lists_are_filtered(runs: Runs) -> None:
    mark = secrets.token_hex(8)
    exec_id = runs.submit("echo", f"needle-{mark}", labels={"mark": mark, "b": "2"})
    created = runs.ended(exec_id)["created_at"]

    def found(**query_: Any) -> bool:
        answer = runs.api.get(EXECUTIONS, params={"label": [f"mark={mark}"], **query_})
        assert answer.status_code == 200, answer.text
        return [one["exec_id"] for one in answer.json()["results"]] == [exec_id]

    assert found()
    for good in (
        {"status": "finished"},
        {"outcome": "exited"},
        {"image": runs.image},
        {"label": [f"mark={mark}", "b=2"]},
        {"owner": "anonymous"},
        {"command": f"NEEDLE-{mark}"},
        {"created_after": "2020-01-01T00:00:00Z"},
    ):
        assert found(**good), good
    for bad in (
        {"status": "queued"},
        {"outcome": "signalled"},
        {"image": "busybox:nothing"},
        {"label": [f"mark={mark}", "b=3"]},
        {"owner": "nobody"},
        {"command": f"{mark}-needle"},
        {"created_before": created},
    ):
        assert not found(**bad), bad


@pytest.mark.parametrize(
    "query_",
    [
        {"limit": "0"},
        {"cursor": "x"},
        {"status": "lost"},
        {"label": "nothing"},
        {"created_after": "today"},
    ],
)
def test_what_a_list_cant_be_asked_is_named(api: httpx.Client, query_: dict[str, str]) -> None:
    answer = api.get(EXECUTIONS, params=query_)
    assert code(answer, 400) == "invalid"
    assert list(answer.json()["fields"]) == list(query_)


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": {str(n): "x" for n in range(17)}},
        {"labels": {"a b": "x"}},
        {"priority": 101},
        {"expires_in": 0},
        {"stdin": "%", "stdin_encoding": "base64"},
    ],
)
def test_what_cant_be_submitted_is_named(runs: Runs, wrong: dict[str, Any]) -> None:
    body = {"image": runs.image, "cmd": ["true"], **wrong}
    answer = runs.api.post(EXECUTIONS, json=body)
    assert code(answer, 400) == "invalid"
    assert next(iter(answer.json()["fields"])).split(".")[0] == next(iter(wrong))


# ── Cancel, remove, repeat ──


def test_a_run_is_cancelled_and_keeps_what_it_printed(runs: Runs) -> None:
    exec_id = runs.shell("echo before; sleep 55; echo after")
    until(lambda: runs.bytes_of(exec_id).content == b"before\n", "it prints")
    assert runs.post(exec_id, "cancel").status_code == 202
    found = runs.ended(exec_id)
    assert (found["status"], found["outcome"]) == ("cancelled", "")
    assert runs.bytes_of(exec_id).content == b"before\n"
    assert found["wall_ms"] < 50_000
    assert code(runs.post(exec_id, "cancel"), 409) == "has_ended"


def test_what_waits_never_starts_once_it_is_cancelled(runs: Runs, stack: Stack) -> None:
    busy = [runs.shell("sleep 55") for _ in range(4)]
    for exec_id in busy:
        runs.running(exec_id)
    waiting = runs.submit("echo", "ran")
    late = runs.submit("echo", "ran", expires_in=1)
    answer = runs.post(waiting, "cancel")
    assert answer.json()["status"] == "cancelled"
    expired = runs.ended(late)
    assert (expired["status"], expired["error_code"]) == ("cancelled", "expired")
    for exec_id in busy:
        runs.post(exec_id, "cancel")
    for exec_id in busy:
        assert runs.ended(exec_id)["status"] == "cancelled"
    found = runs.ended(waiting)
    assert (found["status"], found["started_at"]) == ("cancelled", None)
    # The workers are as good as before.
    assert runs.ended(runs.submit("true"))["exit_code"] == 0


def test_an_ended_run_is_removed_with_its_files(runs: Runs, stack: Stack) -> None:
    exec_id = runs.shell("sleep 2; echo kept > /output/a")
    assert code(runs.api.delete(f"{EXECUTIONS}{exec_id}/"), 409) == "not_ended"
    runs.ended(exec_id)
    assert download(stack, f"output/{exec_id}/a") == (200, b"kept\n")
    assert runs.api.delete(f"{EXECUTIONS}{exec_id}/").status_code == 204
    assert code(runs.api.get(f"{EXECUTIONS}{exec_id}/"), 404) == "not_found"
    assert download(stack, f"output/{exec_id}/a")[0] == 404


def test_a_run_is_repeated_with_the_inputs_that_it_had(runs: Runs, stack: Stack) -> None:
    upload(stack, "repeat/in.txt", b"one")
    exec_id = runs.submit(
        *("sh", "-c", "cat /repeat/in.txt -"),
        files=["repeat/in.txt"],
        persist=True,
        stdin=" and stdin",
    )
    digest = runs.ended(exec_id)["image_digest"]
    upload(stack, "repeat/in.txt", b"two")
    answer = runs.post(exec_id, "rerun")
    assert answer.status_code == 202, answer.text
    again = answer.json()
    assert (again["rerun_of"], again["image"].endswith(f"@{digest}")) == (exec_id, True)
    assert runs.ended(again["exec_id"])["image_digest"] == digest
    assert runs.bytes_of(again["exec_id"]).content == b"one and stdin"


def test_what_wasnt_kept_cant_be_repeated(runs: Runs, stack: Stack) -> None:
    upload(stack, "gone/in.txt", b"one")
    exec_id = runs.submit("cat", "/gone/in.txt", files=["gone/in.txt"])
    runs.ended(exec_id)
    assert code(runs.post(exec_id, "rerun"), 409) == "inputs_gone"
    secret = runs.submit("true", env=["API_TOKEN=abc"])
    runs.ended(secret)
    assert code(runs.post(secret, "rerun"), 409) == "inputs_gone"


# ── Files ──


def test_what_it_left_is_listed_and_read(runs: Runs) -> None:
    exec_id = runs.shell("cd /output; mkdir d; echo a > a; echo b > d/b.txt; echo c > c.log")
    runs.ended(exec_id)
    listed = runs.api.get(f"{EXECUTIONS}{exec_id}/files/").json()["files"]
    assert [(file["path"], file["size"]) for file in listed] == [
        ("a", 2),
        ("c.log", 2),
        ("d/b.txt", 2),
    ]
    one = runs.api.get(f"{EXECUTIONS}{exec_id}/files/d/b.txt", headers={"Range": "bytes=0-0"})
    assert (one.status_code, one.content) == (206, b"b")
    assert code(runs.api.get(f"{EXECUTIONS}{exec_id}/files/d/none"), 404) == "not_found"
    answer = runs.api.get(f"{EXECUTIONS}{exec_id}/files.zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "a": b"a\n",
            "c.log": b"c\n",
            "d/b.txt": b"b\n",
        }


def test_only_the_outputs_that_were_asked_for_are_kept(runs: Runs) -> None:
    exec_id = runs.shell("cd /output; mkdir d; touch a d/b c.log", outputs=["d", "*.log"])
    runs.ended(exec_id)
    listed = runs.api.get(f"{EXECUTIONS}{exec_id}/files/").json()["files"]
    assert [file["path"] for file in listed] == ["c.log", "d/b"]


# ── Events ──


class Event(dict[str, Any]):
    name: str
    id: str


def events(runs: Runs, exec_id: str, last: str = "") -> Iterator[Event]:
    headers = {"Last-Event-ID": last, "Accept": "text/event-stream"}
    with runs.api.stream("GET", f"{EXECUTIONS}{exec_id}/events/", headers=headers) as answer:
        assert answer.status_code == 200
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                event = Event(json.loads(fields["data"]))
                event.name, event.id = fields["event"], fields.get("id", "")
                yield event
                fields = {}


def printed(found: list[Event]) -> list[tuple[str, bytes]]:
    """Pieces of one stream in a row are one."""
    joined: list[tuple[str, bytes]] = []
    for event in found:
        if event.name in {"stdout", "stderr"}:
            data = base64.b64decode(event["base64"])
            if joined and joined[-1][0] == event.name:
                data = joined.pop()[1] + data
            joined.append((event.name, data))
    return joined


SPEAKS = "for n in 1 2 3; do echo o$n; sleep 0.4; echo e$n >&2; sleep 0.4; done; printf '\\377'"


def test_a_run_is_seen_live_in_order_and_to_its_end(runs: Runs) -> None:
    exec_id = runs.shell(SPEAKS)
    found, live = [], False
    for event in events(runs, exec_id):
        found.append(event)
        if event.name == "stdout" and not live:
            live = runs.get(exec_id)["status"] == "running"
    assert live, "it was only seen when it had ended"
    assert printed(found) == EXPECTED
    assert found[-1].name == "end"
    assert (found[-1]["outcome"], found[-1]["exec_id"]) == ("exited", exec_id)
    assert "running" in [event["status"] for event in found if event.name == "status"]
    assert any(event["memory_bytes"] >= 0 for event in found if event.name == "usage")


EXPECTED = [
    ("stdout", b"o1\n"),
    ("stderr", b"e1\n"),
    ("stdout", b"o2\n"),
    ("stderr", b"e2\n"),
    ("stdout", b"o3\n"),
    ("stderr", b"e3\n"),
    ("stdout", b"\xff"),
]


def test_watching_goes_on_where_it_stopped_also_after_the_end(runs: Runs) -> None:
    exec_id = runs.shell(SPEAKS)
    first: list[Event] = []
    for event in events(runs, exec_id):
        first.append(event)
        if len(printed(first)) == 3:
            break
    rest = list(events(runs, exec_id, last=first[-1].id))
    assert b"".join(data for _, data in printed(first) + printed(rest)) == b"".join(
        data for _, data in EXPECTED
    )
    runs.ended(exec_id)
    again = list(events(runs, exec_id, last=first[-1].id))
    assert printed(again) == printed(rest)
    assert printed(list(events(runs, exec_id, last="4")))[0] == ("stderr", b"1\n")
    whole = printed(list(events(runs, exec_id)))
    assert whole == EXPECTED
    assert [event.name for event in events(runs, exec_id, last="9999999")] == ["status", "end"]


def test_nothing_is_written_down_of_a_run_that_nobody_watches(runs: Runs, stack: Stack) -> None:
    exec_id = runs.shell("echo one; sleep 1; echo two")
    runs.ended(exec_id)
    sql = """
        SELECT 1 FROM events_watch watch JOIN executions_execution run ON run.id = execution_id
        WHERE exec_id = %s
    """
    assert query(stack, sql, exec_id) == []


def test_an_id_that_is_none_is_refused(runs: Runs) -> None:
    exec_id = runs.submit("true")
    headers = {"Last-Event-ID": "x"}
    answer = runs.api.get(f"{EXECUTIONS}{exec_id}/events/", headers=headers)
    assert code(answer, 400) == "invalid"
    assert code(runs.api.get(f"{EXECUTIONS}boxer-0/events/"), 404) == "not_found"
