"""boxer batch and boxer batch-results: on a whole Boxer, and on one whose answers get lost."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli import batches
from cli.batches import read
from cli.errors import ClientError
from tests.client import BOXER, Terminal, boxer, environment
from tests.cutting_proxy import CuttingProxy
from tests.faulty_boxer import Answer, FaultyBoxer, refused, told
from tests.stack import Stack
from tests.stack_access import query, until

LIMITS = {"memory_mb": 64, "wall_clock_secs": 30}
CREATE = "POST /api/v1/batches/"
ONE = "/api/v1/batches/batch-1/"
QUEUED: dict[str, Any] = {
    "batch_id": "batch-1",
    "phase": "queued",
    "error": "",
    "entrypoint": None,
    "ended": False,
    "total": 1,
    "statuses": {"queued": 1},
    "verdicts": {},
}
ENDED = QUEUED | {"ended": True, "statuses": {"finished": 1}, "verdicts": {"passed": 1}}
RESULT: dict[str, Any] = {
    "number": 0,
    "status": "finished",
    "outcome": "exited",
    "exit_code": 0,
    "wall_ms": 12,
    "error": "",
    "verdict": "passed",
    "remark": "",
}
RUN = b'{"runs": [{"cmd": ["true"]}]}'


def shell(script: str, **more: Any) -> dict[str, Any]:
    return {"cmd": ["sh", "-c", script], **more}


def results(*found: dict[str, Any], whole: bool = True) -> Answer:
    body = b"".join(json.dumps(one).encode() + b"\n" for one in found)
    return Answer(200, body, {"Content-Type": "application/jsonl"}, whole)


# ── A whole Boxer ────────────────────────────────────────────────────────────────────────────────


def test_cases_are_built_run_and_told_one_by_one(
    stack: Stack, busybox_reference: str, tmp_path: Path
) -> None:
    request = {
        "template": {"image": busybox_reference, "limits": LIMITS, "cmd": ["/build/add"]},
        "entrypoint": shell("printf '#!/bin/sh\\nread n; echo $((n+1))' >/output/add"
                            "; chmod +x /output/add"),
        "runs": [
            {"stdin": "1\n", "expected_stdout": "2\n"},
            {"stdin": "1\n", "expected_stdout": "3\n"},
            shell("sleep 60", limits={"wall_clock_secs": 1}),
        ],
    }  # fmt: skip
    (tmp_path / "cases.json").write_text(json.dumps(request, indent=1))
    done = boxer(stack.base_url, tmp_path, "batch", "cases.json")
    assert done.returncode == 1, done.stderr
    rows = sorted(line.split() for line in done.stdout.decode().splitlines())
    assert [row[:3] for row in rows] == [
        ["0", "passed", "exited"],
        ["1", "failed", "exited"],
        ["2", "timed_out", "timed_out"],
    ]
    assert rows[0][3] == rows[1][3] == "0"
    [told_last] = done.stderr.decode().splitlines()
    assert told_last.endswith(": 3 ended: 1 failed, 1 passed, 1 timed_out")

    # The same as JSON lines, by its id.
    batch_id = told_last.split()[1].rstrip(":")
    again = boxer(stack.base_url, tmp_path, "batch-results", "--json", batch_id)
    found = sorted(map(json.loads, again.stdout.splitlines()), key=lambda one: int(one["number"]))
    assert again.returncode == 1
    assert [one["verdict"] for one in found] == ["passed", "failed", "timed_out"]
    assert [one["stdout"] for one in found] == ["2\n", "2\n", ""]


def test_one_that_passes_in_a_terminal_has_a_bar(
    stack: Stack, busybox_reference: str, tmp_path: Path
) -> None:
    lines = [{"template": {"image": busybox_reference, "limits": LIMITS}}]
    lines += [shell("true"), shell("sleep 2", env=["A=\u00e9"])]
    (tmp_path / "cases.jsonl").write_text("\n".join(map(json.dumps, lines)))
    env = environment(stack.base_url, tmp_path, {"NO_COLOR": "1"})
    with Terminal(*BOXER, "batch", "cases.jsonl", cwd=tmp_path, env=env) as terminal:
        assert terminal.wait() == 0, terminal.seen
    assert "0/2" in terminal.seen
    assert "1/2 1 passed" in terminal.seen
    assert terminal.seen.splitlines()[-1].endswith(": 2 ended: 2 passed")


def test_ctrl_c_cancels_all_of_it(stack: Stack, busybox_reference: str, tmp_path: Path) -> None:
    template = {"image": busybox_reference, "limits": LIMITS}
    runs = [shell("echo there"), *[shell("sleep 60", limits={"wall_clock_secs": 90})] * 2]
    (tmp_path / "long.json").write_text(json.dumps({"template": template, "runs": runs}))
    env = environment(stack.base_url, tmp_path)
    with Terminal(*BOXER, "batch", "long.json", cwd=tmp_path, env=env) as terminal:
        terminal.wait_for("0  passed")
        terminal.press("\x03")
        assert terminal.wait() == 130, terminal.seen
    assert "Traceback" not in terminal.seen
    batch_id = terminal.seen.partition("cancelling ")[2].split()[0]
    assert f"{batch_id}: cancelled" in terminal.seen

    def statuses() -> list[str]:
        rows = query(
            stack,
            "SELECT e.status AS status FROM executions_execution e JOIN batches_case c"
            " ON c.execution_id = e.id JOIN batches_batch b ON b.id = c.batch_id"
            " WHERE b.batch_id = %s ORDER BY c.number",
            batch_id,
        )
        return [str(row["status"]) for row in rows]

    until(lambda: statuses() == ["finished", "cancelled", "cancelled"], "they are cancelled")
    after = boxer(stack.base_url, tmp_path, "batch-results", batch_id)
    assert after.returncode == 1
    assert after.stderr.decode().endswith(": 3 ended: 2 error, 1 passed\n")


def test_a_lost_answer_makes_no_second_batch(
    stack: Stack, busybox_reference: str, tmp_path: Path
) -> None:
    label = {"test": tmp_path.name}
    template = {"image": busybox_reference, "limits": LIMITS, "labels": label}
    request = {"template": template, "runs": [shell("true")]}
    with CuttingProxy(stack.base_url, after_bytes=150) as proxy:
        done = boxer(proxy.url, tmp_path, "batch", "-d", "-", stdin=json.dumps(request).encode())
    assert done.returncode == 125
    assert b"it may have been accepted" in done.stderr
    assert proxy.cuts == 5
    rows = query(
        stack, "SELECT id FROM executions_execution WHERE labels->>'test' = %s", tmp_path.name
    )
    assert len(rows) == 1


def test_what_the_service_refuses_is_named(
    stack: Stack, busybox_reference: str, tmp_path: Path
) -> None:
    bad = {"template": {"image": busybox_reference}, "runs": [shell("true"), {"cmmd": ["x"]}]}
    done = boxer(stack.base_url, tmp_path, "batch", "-", stdin=json.dumps(bad).encode())
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"runs.1" in done.stderr
    assert b"cmmd" in done.stderr
    gone = boxer(stack.base_url, tmp_path, "batch-results", "batch-none")
    assert gone.returncode == 125
    assert b"batch-none" in gone.stderr


# ── One whose answers get lost ───────────────────────────────────────────────────────────────────


def test_a_lost_answer_is_asked_for_again_with_the_same_key(tmp_path: Path) -> None:
    lost = Answer(202, b"{", {"Content-Type": "application/json"}, whole=False)
    answers = {
        CREATE: [lost, refused(502, "Restarting."), told(QUEUED, 202)],
        f"GET {ONE}": [told(QUEUED), refused(502, "Restarting."), told(ENDED)],
        f"GET {ONE}results/": [results(whole=False), results(RESULT)],
    }
    with FaultyBoxer(answers) as faulty:
        done = boxer(faulty.url, tmp_path, "batch", "--json", "-", stdin=RUN)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == RESULT
    posts = [asked for asked in faulty.asked if asked.method == "POST"]
    assert len(posts) == 3
    assert len({asked.headers["Idempotency-Key"] for asked in posts}) == 1
    assert {asked.body for asked in posts} == {RUN}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"verdict": "error", "outcome": "infra_error", "error": "no disk"}, 125),
        ({"verdict": "", "status": "skipped", "outcome": "", "exit_code": None}, 1),
    ],
)
def test_boxers_own_failure_has_a_code_of_its_own(
    changed: dict[str, Any], code: int, tmp_path: Path
) -> None:
    answers = {
        CREATE: [told(QUEUED, 202)],
        f"GET {ONE}": [told(ENDED | {"error": "told why", "entrypoint": "boxer-1"})],
        f"GET {ONE}results/": [results(RESULT | changed)],
    }
    with FaultyBoxer(answers) as faulty:
        done = boxer(faulty.url, tmp_path, "batch", "-", stdin=RUN)
    assert done.returncode == code
    assert done.stderr.startswith(b"boxer: batch-1: told why (boxer logs boxer-1)\n")


def test_ctrl_c_while_it_is_submitted_still_cancels_it(tmp_path: Path) -> None:
    process: list[subprocess.Popen[bytes]] = []
    accepted = told(QUEUED, 202)
    accepted.before = lambda: process[0].send_signal(signal.SIGINT)
    (tmp_path / "cases").write_bytes(RUN)
    with FaultyBoxer({CREATE: [accepted], f"POST {ONE}cancel/": [told(ENDED, 202)]}) as faulty:
        process.append(
            subprocess.Popen(
                [*BOXER, "batch", "cases"],
                cwd=tmp_path,
                env=environment(faulty.url, tmp_path),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        out, err = process[0].communicate(timeout=60)
    assert (process[0].returncode, out) == (130, b"")
    assert err.endswith(b"batch-1: cancelled\n")


@pytest.mark.parametrize(("command", "cancels"), [("batch", True), ("batch-results", False)])
def test_a_reader_that_goes_away_cancels_what_was_submitted_alone(
    command: str, cancels: bool, tmp_path: Path
) -> None:
    (tmp_path / "batch-1").write_bytes(RUN)
    answers = {
        CREATE: [told(QUEUED, 202)],
        f"GET {ONE}": [told(ENDED | {"total": 2, "ended": False})],
        f"GET {ONE}results/": [results(RESULT)],
        f"POST {ONE}cancel/": [told(ENDED, 202)],
    }
    reading, writing = os.pipe()
    os.close(reading)
    with FaultyBoxer(answers) as faulty:
        done = subprocess.run(
            [*BOXER, command, "batch-1"],
            cwd=tmp_path,
            env=environment(faulty.url, tmp_path),
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    os.close(writing)
    assert done.returncode == 128 + 13, done.stderr
    assert any(asked.path == f"{ONE}cancel/" for asked in faulty.asked) == cancels


# ── Files ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ('{"runs": [{}], "template": {}}', {"runs": [{}], "template": {}}),
        ('[{"cmd": ["a"]}]', {"runs": [{"cmd": ["a"]}]}),
        ('\ufeff{"cmd": ["a"]}', {"runs": [{"cmd": ["a"]}]}),
        ('{"args": ["1"]}\r\n\n{"args": ["2"]}\n', {"runs": [{"args": ["1"]}, {"args": ["2"]}]}),
        ('{"build_dir": "/b"}\n{}', {"build_dir": "/b", "runs": [{}]}),
    ],
)
def test_a_request_is_read(text: str, request_: dict[str, Any], tmp_path: Path) -> None:
    (file := tmp_path / "cases").write_text(text)
    assert read(str(file)) == request_


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ": is empty"),
        (b"\xff", ": isn't UTF-8, at byte 0"),
        (b"3", ": must have JSON objects"),
        (b'{"template": {}}', ": has no runs"),
        (b'{"template": {}, "cmd": []}\n{}', ": cmd: not beside template"),
        (b'{"cmd": []}\n{"cmd": [}', ", line 2: isn't JSON: Expecting value (column 10)"),
        (b'{\n "runs": [\n  x]}', ", line 3: isn't JSON: Expecting value (column 3)"),
        (b'{"a": NaN}', ", line 1: isn't JSON: NaN isn't JSON"),
        (b"[" * 100_000, ", line 1: isn't JSON: "),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(content: bytes, said: str, tmp_path: Path) -> None:
    (file := tmp_path / "cases").write_bytes(content)
    with pytest.raises(ClientError) as caught:
        read(str(file))
    assert caught.value.message.startswith(f"{file}{said}")


def test_a_file_that_isnt_there_is_named(tmp_path: Path) -> None:
    done = boxer("http://127.0.0.1:9", tmp_path, "batch", "none.json")
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr == b"boxer: none.json: No such file or directory\n"


def test_nothing_endless_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_BYTES", 1000)
    with pytest.raises(ClientError, match=r"^/dev/zero: more than 1000 bytes$"):
        read("/dev/zero")
