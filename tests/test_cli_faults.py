"""The client and what goes wrong: one clear line each, nothing lost, nothing left behind."""

import base64
import json
import signal
import socket
import stat
import subprocess
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.client import BOXER, Terminal, boxer, environment
from tests.faulty_boxer import Answer, FaultyBoxer, refused, told

LIST = "GET /api/v1/executions/"
CREATE = "POST /api/v1/executions/"
NOTHING: dict[str, Any] = {"results": [], "next": None}
QUEUED = {"exec_id": "boxer-1", "status": "queued", "image": "busybox"}
ENDED = QUEUED | {"status": "finished", "outcome": "exited", "exit_code": 5, "left_out": []}
RUN = ("run", "busybox", "--", "true")


def event(name: str, data: object, number: int | None = None) -> bytes:
    line = "" if number is None else f"id: {number}\n"
    return f"{line}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def output(name: str, data: bytes, number: int) -> bytes:
    return event(name, {"base64": base64.b64encode(data).decode()}, number)


def test_where_nobody_listens_the_url_is_named(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = boxer(url, tmp_path, "ps")
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.decode() == f"boxer: {url}: can't connect: Connection refused\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refused(403, "May not."), "boxer: busybox: not allowed: May not.\n"),
        (refused(404, "Not found."), "boxer: busybox: Not found.\n"),
        (refused(413, "Too much."), "boxer: busybox: too large: Too much.\n"),
        (refused(500, "Our fault."), "boxer: busybox: Our fault.\n"),
        (Answer(502, b"<html>"), "answered 502\n"),
        (Answer(200, b"<html>"), "answers, but not as Boxer does\n"),
        (refused(400, "no\nlines \x1b[2J here"), "no�lines �[2J here\n"),
    ],
)
def test_refusals_are_one_line(answer: Answer, said: str, tmp_path: Path) -> None:
    with FaultyBoxer({CREATE: [answer]}) as faulty:
        done = boxer(faulty.url, tmp_path, *RUN)
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr.decode().endswith(said)
    assert done.stderr.count(b"\n") == 1


def test_too_many_requests_says_when(tmp_path: Path) -> None:
    with FaultyBoxer({CREATE: [refused(429, "Slow down.", Retry_After="90")]}) as faulty:
        done = boxer(faulty.url, tmp_path, *RUN)
    assert done.returncode == 125
    assert b"boxer: busybox: Slow down. (try again in 90 s, at " in done.stderr
    assert len(faulty.asked) == 1


def test_a_busy_service_is_asked_again_when_it_says(tmp_path: Path) -> None:
    busy = refused(503, "1000 runs are waiting already", Retry_After="1")
    with FaultyBoxer({CREATE: [busy, busy, told(QUEUED, 202)]}) as faulty:
        done = boxer(faulty.url, tmp_path, "run", "-d", "busybox", "--", "true")
    assert (done.returncode, done.stdout) == (0, b"boxer-1\n")
    assert done.stderr.count(b"1000 runs are waiting already; trying again in 1 s\n") == 2
    assert len(faulty.asked) == 3


def test_a_service_that_stays_busy_is_left_alone_in_the_end(tmp_path: Path) -> None:
    with FaultyBoxer({LIST: [refused(503, "Busy.", Retry_After="1")]}) as faulty:
        done = boxer(faulty.url, tmp_path, "ps")
    assert done.returncode == 125
    assert b"boxer: ps: Busy. (try again in 1 s" in done.stderr.splitlines()[-1]
    assert len(faulty.asked) == 5


def test_a_token_is_sent_and_neither_told_nor_carried_elsewhere(tmp_path: Path) -> None:
    elsewhere = Answer(302, headers={"Location": "http://127.0.0.1:9/"})
    bad = refused(401, "There is no such token.")
    with FaultyBoxer({LIST: [bad, bad, elsewhere]}) as faulty:
        refusal = boxer(faulty.url, tmp_path, "ps", env={"BOXER_TOKEN": "s3cret"})
        nobody = boxer(faulty.url, tmp_path, "ps")
        host = faulty.url.removeprefix("http://")
        moved = boxer(f"http://me:s3cret@{host}", tmp_path, "ps")
    sent = [asked.headers.get("Authorization") for asked in faulty.asked]
    assert sent == ["Bearer s3cret", None, "Bearer s3cret"]
    assert refusal.stderr.decode() == (
        f"boxer: {faulty.url} doesn't accept the token: There is no such token. (boxer login)\n"
    )
    assert b"wants a token: boxer login" in nobody.stderr
    assert b"sends elsewhere: http://127.0.0.1:9/" in moved.stderr
    assert all(b"s3cret" not in done.stderr for done in (refusal, nobody, moved))


def test_events_go_on_where_they_broke_off(tmp_path: Path) -> None:
    first = event("status", {"status": "running"}, 0) + output("stdout", b"one\n", 4)
    torn = output("stderr", b"lost", 8)[:-12]
    rest = output("stderr", b"two\n", 8) + event("end", ENDED, 8)
    stream = {"Content-Type": "text/event-stream"}
    answers = [
        Answer(200, first + torn, stream, whole=False),
        refused(503, "Restarting."),
        Answer(200, b": still there\n\n", stream),
        Answer(200, rest, stream),
    ]
    with FaultyBoxer(
        {CREATE: [told(QUEUED, 202)], "GET /api/v1/executions/boxer-1/events/": answers}
    ) as faulty:
        done = boxer(faulty.url, tmp_path, *RUN)
    assert (done.returncode, done.stdout, done.stderr) == (5, b"one\n", b"two\n")
    assert [asked.headers.get("Last-Event-ID") for asked in faulty.asked[1:]] == [None, *"444"]


@pytest.mark.parametrize("path", ["../evil", "/evil", "a/../../evil", "a//b", "", "a/."])
def test_a_server_cant_write_outside_of_the_directory(path: str, tmp_path: Path) -> None:
    files = {"files": [{"path": path, "size": 1, "sha256": ""}]}
    with FaultyBoxer({"GET /api/v1/executions/boxer-1/files/": [told(files)]}) as faulty:
        done = boxer(faulty.url, tmp_path, "files", "get", "--run", "boxer-1", "-o", "in/home")
    assert done.returncode == 125
    assert b"a path that leads elsewhere" in done.stderr
    assert not list(tmp_path.rglob("evil"))


def test_a_file_that_arrives_changed_isnt_kept(tmp_path: Path) -> None:
    files = {"files": [{"path": "a", "size": 4, "sha256": sha256(b"good").hexdigest()}]}
    base = "GET /api/v1/executions/boxer-1/files/"
    with FaultyBoxer({base: [told(files)], f"{base}a": [Answer(200, b"evil")]}) as faulty:
        done = boxer(faulty.url, tmp_path, "files", "get", "--run", "boxer-1", "-o", "home")
    assert done.returncode == 125
    assert b"home/a: arrived with other contents" in done.stderr
    assert list((tmp_path / "home").iterdir()) == []


def test_ctrl_c_while_it_is_submitted_still_cancels_it(tmp_path: Path) -> None:
    process: list[subprocess.Popen[bytes]] = []
    accepted = told(QUEUED, 202)
    accepted.before = lambda: process[0].send_signal(signal.SIGINT)
    one = "/api/v1/executions/boxer-1/"
    cancelled = QUEUED | {"status": "cancelled"}
    answers = {
        CREATE: [accepted],
        f"POST {one}cancel/": [told(cancelled, 202)],
        f"GET {one}": [told(cancelled)],
    }
    with FaultyBoxer(answers) as faulty:
        process.append(
            subprocess.Popen(
                [*BOXER, *RUN],
                cwd=tmp_path,
                env=environment(faulty.url, tmp_path),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        out, err = process[0].communicate(timeout=60)
    assert (process[0].returncode, out) == (130, b"")
    assert b"boxer-1: cancelled\n" in err
    asked = [f"{one.method} {one.path.partition('?')[0]}" for one in faulty.asked]
    assert asked == list(answers)


def test_login_keeps_what_works_for_its_owner_alone(tmp_path: Path) -> None:
    with FaultyBoxer({LIST: [told(NOTHING)]}) as faulty:
        env = environment("", tmp_path)
        with Terminal(*BOXER, "login", cwd=tmp_path, env=env) as terminal:
            terminal.wait_for("URL")
            terminal.press(f"{faulty.url}/\n")
            terminal.wait_for("Token")
            terminal.press("s3cret\n")
            assert terminal.wait() == 0, terminal.seen
        assert "s3cret" not in terminal.seen
        assert boxer("", tmp_path, "ps").returncode == 0
        # The token of the file isn't for whatever else BOXER_URL names.
        localhost = faulty.url.replace("127.0.0.1", "localhost")
        assert boxer(localhost, tmp_path, "ps").returncode == 0
    sent = [asked.headers.get("Authorization") for asked in faulty.asked]
    assert sent == ["Bearer s3cret", "Bearer s3cret", None]
    file = tmp_path / ".config/boxer/config.toml"
    assert tomllib.loads(file.read_text()) == {"url": faulty.url, "token": "s3cret"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [found.name for found in file.parent.iterdir()] == [file.name]


def test_login_keeps_nothing_that_is_refused(tmp_path: Path) -> None:
    with FaultyBoxer({LIST: [refused(401, "No.")]}) as faulty:
        arguments = ["login", "--url", faulty.url, "--token-stdin"]
        done = boxer("", tmp_path, *arguments, stdin=b"s3cret\n")
    assert done.returncode == 125
    assert not (tmp_path / ".config").exists()


def test_a_login_without_answers_is_an_error(tmp_path: Path) -> None:
    with Terminal(*BOXER, "login", cwd=tmp_path, env=environment("", tmp_path)) as terminal:
        terminal.wait_for("URL")
        terminal.press("\x04")
        assert terminal.wait() == 125
    assert "no answer to the question" in terminal.seen
    piped = boxer("", tmp_path, "login", "--url", "http://127.0.0.1:9")
    assert piped.returncode == 125
    assert piped.stderr == (
        b"boxer: login: no terminal to ask for the token; --token-stdin reads it\n"
    )


def test_a_pull_tells_how_it_ended(tmp_path: Path) -> None:
    going: dict[str, Any] = {"id": "1", "state": "running", "bytes_done": 1, "bytes_total": 2}
    ended: dict[str, Any] = {"id": "1", "state": "done", "digest": "sha256:ab", "error": ""}
    ended |= {"bytes_done": 2, "bytes_total": 2}
    failed = ended | {"state": "failed", "error": "no such image"}
    one = "GET /api/v1/images/prefetch/1/"
    create = {"POST /api/v1/images/prefetch/": [told(going, 202)]}
    with FaultyBoxer(create | {one: [told(going), told(ended)]}) as faulty:
        done = boxer(faulty.url, tmp_path, "pull", "busybox")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"sha256:ab\n", b"")
    with FaultyBoxer(create | {one: [told(failed)]}) as faulty:
        done = boxer(faulty.url, tmp_path, "pull", "busybox")
    assert (done.returncode, done.stderr) == (125, b"boxer: busybox: failed: no such image\n")


def test_an_answer_of_another_shape_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    answers: list[Any] = [{"results": [{}], "next": None}, [], {"results": 1}]
    for answer in answers:
        with FaultyBoxer({LIST: [told(answer)]}) as faulty:
            done = boxer(faulty.url, tmp_path, "ps")
        assert (done.returncode, done.stdout) == (125, b"")
        assert done.stderr.startswith(b"boxer: the server answers what this client doesn't know")
        assert done.stderr.count(b"\n") == 1


def test_a_run_that_may_have_been_accepted_isnt_submitted_twice(tmp_path: Path) -> None:
    lost = Answer(202, b"{", {"Content-Type": "application/json"}, whole=False)
    with FaultyBoxer({CREATE: [lost]}) as faulty:
        done = boxer(faulty.url, tmp_path, *RUN)
    assert done.returncode == 125
    assert b"it may run all the same: boxer ps" in done.stderr
    assert len(faulty.asked) == 1


def test_a_pull_has_a_bar_in_a_terminal(tmp_path: Path) -> None:
    going: dict[str, Any] = {"id": "1", "state": "running", "digest": "sha256:ab", "error": ""}
    going |= {"bytes_done": 3_000_000, "bytes_total": 8_000_000}
    answers = {
        "POST /api/v1/images/prefetch/": [told(going, 202)],
        "GET /api/v1/images/prefetch/1/": [
            told(going),
            told(going),
            told(going | {"state": "done"}),
        ],
    }
    with FaultyBoxer(answers) as faulty:
        env = environment(faulty.url, tmp_path)
        with Terminal(*BOXER, "pull", "busybox", cwd=tmp_path, env=env) as terminal:
            assert terminal.wait() == 0
    assert "3.0/8.0 MB" in terminal.seen
