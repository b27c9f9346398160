"""boxer run, ps, logs, cancel, rerun, files: against a whole Boxer, over HTTP."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.client import BOXER, boxer, environment
from tests.stack import Stack
from tests.stack_access import download, execution, until

Client = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def client(stack: Stack, busybox_reference: str, tmp_path: Path) -> Client:
    def call(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return boxer(stack.base_url, tmp_path, *arguments, **options)

    return call


def shell(script: str) -> list[str]:
    return ["busybox", "--", "/bin/sh", "-c", script]


def test_both_streams_come_out_as_they_are_and_the_exit_code_is_the_programs(
    client: Client,
) -> None:
    done = client("run", *shell(r"printf 'a\000\377\n'; printf 'b\376' >&2; exit 7"))
    assert (done.returncode, done.stdout, done.stderr) == (7, b"a\0\xff\n", b"b\xfe")


def test_a_signal_is_told_as_a_shell_tells_it(client: Client) -> None:
    assert client("run", *shell("kill -TERM $$")).returncode == 128 + 15


def test_large_output_arrives_whole(client: Client) -> None:
    done = client("run", *shell("head -c 700000 /dev/zero | tr '\\0' x; echo end >&2"))
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 700_000, b"end\n")


def test_a_run_that_takes_too_long_ends_with_a_code_and_words_of_its_own(client: Client) -> None:
    done = client("run", "--limit", "wall_clock_secs=1", *shell("echo first; sleep 60"))
    assert (done.returncode, done.stdout) == (124, b"first\n")
    assert b"stopped after 1 s (wall_clock_secs)" in done.stderr


def test_what_is_given_reaches_the_program(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"put in\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "other").write_bytes(b"other\n")
    options = ["--env", "A=b c", "--env", "OURS", "--cwd", "/tmp", "--label", "test=given"]
    options += ["-f", "in.txt", "-f", "deep/other:work/renamed", "--limit", "memory_mb=64"]
    script = "pwd; echo $A $OURS; cat /in.txt /work/renamed; cat"
    done = client(
        "run", *options, "--stdin", *shell(script), stdin=b"piped \xff\n", env={"OURS": "ours"}
    )
    assert done.stderr == b""
    assert done.stdout == b"/tmp\nb c ours\nput in\nother\npiped \xff\n"
    listed = json.loads(client("ps", "--label", "test=given", "-n", "1", "--json").stdout)
    assert [one["limits"]["memory_mb"] for one in listed] == [64]


def test_the_output_comes_home_and_replaces_nothing_unasked(
    client: Client, stack: Stack, tmp_path: Path
) -> None:
    script = "mkdir -p /output/sub; echo 1 >/output/a; echo 2 >/output/sub/b"
    done = client("run", "-o", "home", *shell(script))
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "home/a").read_bytes() == b"1\n"
    assert (tmp_path / "home/sub/b").read_bytes() == b"2\n"

    (tmp_path / "home/a").write_bytes(b"mine")
    again = client("run", "-o", "home", *shell(script))
    assert again.returncode == 125
    assert b"home/a: is there already" in again.stderr
    assert (tmp_path / "home/a").read_bytes() == b"mine"
    exec_id = again.stderr.decode().partition("--run ")[2].split()[0]

    listed = client("files", "ls", exec_id)
    assert [line.split()[-1] for line in listed.stdout.decode().splitlines()] == [
        "PATH",
        "a",
        "sub/b",
    ]
    got = client("files", "get", "--run", exec_id, "-o", "home", "--force")
    assert (got.returncode, got.stderr) == (0, b"")
    assert (tmp_path / "home/a").read_bytes() == b"1\n"
    assert client("files", "get", "--run", exec_id, "sub/b").stdout == b"2\n"
    none = client("files", "get", "--run", exec_id, "nothing")
    assert (none.returncode, none.stdout) == (125, b"")
    assert f"{exec_id} left no file nothing" in none.stderr.decode()


def test_files_are_stored_and_got(client: Client, stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_bytes(b"kept\0")
    assert client("files", "put", "kept.txt:store/kept.txt").stdout == b"store/kept.txt\n"
    assert download(stack, "store/kept.txt") == (200, b"kept\0")
    assert client("files", "get", "store/kept.txt").stdout == b"kept\0"
    assert client("files", "get", "-o", "there", "store/kept.txt").returncode == 0
    assert (tmp_path / "there/store/kept.txt").read_bytes() == b"kept\0"
    missing = client("files", "get", "store/none")
    assert (missing.returncode, missing.stdout) == (125, b"")
    assert missing.stderr.startswith(b"boxer: store/none: ")
    assert missing.stderr.count(b"\n") == 1


def test_json_is_one_object_with_what_was_printed(client: Client) -> None:
    done = client("run", "--json", *shell("echo out; echo err >&2; exit 3"))
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (3, b"")
    assert (told["stdout"], told["stderr"], told["exit_code"]) == ("out\n", "err\n", 3)


def test_a_detached_run_is_followed_repeated_removed_and_found(
    client: Client, stack: Stack
) -> None:
    detached = client("run", "-d", *shell("echo one; sleep 1; echo two; exit 4"))
    exec_id = detached.stdout.decode().strip()
    assert (detached.returncode, detached.stderr) == (0, b"")
    followed = client("logs", "-f", exec_id)
    assert (followed.returncode, followed.stdout) == (0, b"one\ntwo\n")
    assert client("logs", exec_id).stdout == b"one\ntwo\n"

    repeated = client("rerun", exec_id)
    assert (repeated.returncode, repeated.stdout) == (4, b"one\ntwo\n")

    by_us = client("run", "-d", *shell("sleep 60")).stdout.decode().strip()
    assert client("rm", by_us).returncode == 125
    assert client("cancel", by_us).returncode == 0
    until(lambda: execution(stack, by_us)["status"] == "cancelled", "it is cancelled")
    removed = client("rm", by_us)
    assert (removed.returncode, removed.stdout.decode()) == (0, f"{by_us}\n")
    assert client("logs", by_us).returncode == 125

    table = client("ps", "--outcome", "exited", "--command", "echo one").stdout.decode()
    heading, *rows = table.splitlines()
    assert heading.split()[:3] == ["ID", "STATUS", "CODE"]
    assert [row.split()[1:3] for row in rows if row.startswith(exec_id)] == [["exited", "4"]]
    assert "\x1b" not in table


def test_what_runs_is_cancelled_and_whoever_watches_is_told(client: Client, stack: Stack) -> None:
    exec_id = client("run", "-d", *shell("echo there; sleep 60")).stdout.decode().strip()
    until(lambda: execution(stack, exec_id)["status"] == "running", "it runs")
    until(lambda: client("logs", exec_id).stdout == b"there\n", "what it has printed so far")
    done = client("cancel", exec_id, "boxer-none")
    assert (done.returncode, done.stdout) == (125, f"{exec_id}\n".encode())
    assert b"boxer-none" in done.stderr
    until(lambda: execution(stack, exec_id)["status"] == "cancelled", "it is cancelled")
    again = client("cancel", exec_id)
    assert again.returncode == 125
    assert again.stderr.decode().startswith(f"boxer: {exec_id}: ")


def test_a_reader_that_goes_away_cancels_the_run(
    stack: Stack, client: Client, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [*BOXER, "run", "--label", "test=gone", *shell("while :; do echo y; sleep 0.1; done")],
        env=environment(stack.base_url, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    with process.stderr as stderr:
        told = stderr.read().decode()
    assert process.wait(60) == 128 + 13, told
    assert "Traceback" not in told
    assert "Exception" not in told
    [row] = json.loads(client("ps", "--label", "test=gone", "--json").stdout)
    assert row["status"] == "cancelled"


def test_errors_are_one_line_that_names_the_thing(client: Client, tmp_path: Path) -> None:
    for arguments, named in [
        (["logs", "boxer-none"], "boxer-none"),
        (["run", "UPPER case", "--", "true"], "UPPER case"),
        (["run", "--limit", "nothing=1", "busybox", "--", "true"], "nothing"),
        (["run", "--limit", "memory_mb", "busybox", "--", "true"], "--limit memory_mb"),
        (["run", "-f", "none.txt", "busybox", "--", "true"], "none.txt"),
        (["run", "-f", str(tmp_path), "busybox", "--", "true"], str(tmp_path)),
        (["run", "--env", "UNSET", "busybox", "--", "true"], "UNSET"),
        (["run", "--network", "all", "busybox", "--", "true"], "network"),
        (["ps", "--after", "later"], "later"),
        (["ps", "--bogus"], "No such option: --bogus"),
        (["run", "busybox"], "CMD"),
        (["begin"], "begin"),
        (["ps", "--status", "lost"], "status"),
    ]:
        done = client(*arguments)
        told = done.stderr.decode()
        assert (done.returncode, done.stdout) == (125, b""), arguments
        assert told.startswith("boxer: "), told
        assert named in told, told
        assert told.count("\n") == 1, told


def test_an_image_that_no_registry_has_is_a_failure_of_ours(client: Client) -> None:
    done = client("run", "no-such-image:1", "--", "true")
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"Boxer failed: " in done.stderr
    assert b"no-such-image" in done.stderr


def test_a_full_disk_of_ours_ends_the_run_and_is_told(
    stack: Stack, client: Client, tmp_path: Path
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*BOXER, "run", "--label", "test=full", *shell("echo y; sleep 60")],
            env=environment(stack.base_url, tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=90,
        )
    assert done.returncode == 125
    assert done.stderr.endswith(b"boxer: stdout: No space left on device\n")
    [row] = json.loads(client("ps", "--label", "test=full", "--json").stdout)
    assert row["status"] == "cancelled"


def test_an_argument_that_isnt_text_is_refused_here(stack: Stack, tmp_path: Path) -> None:
    done = subprocess.run(
        [*BOXER, "run", "busybox", "--", "echo", b"\xff"],
        env=environment(stack.base_url, tmp_path),
        capture_output=True,
        timeout=90,
    )
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr == b"boxer: run: an argument isn't UTF-8, which the API takes alone\n"


def test_an_endless_stdin_is_refused(stack: Stack, tmp_path: Path) -> None:
    with Path("/dev/zero").open("rb") as endless:
        done = subprocess.run(
            [*BOXER, "run", "--stdin", "busybox", "--", "cat"],
            env=environment(stack.base_url, tmp_path),
            stdin=endless,
            capture_output=True,
            timeout=90,
        )
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr == b"boxer: --stdin: more than 10 MiB, which no Boxer takes\n"


def test_without_arguments_it_tells_what_it_can(client: Client) -> None:
    done = client()
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Usage: boxer" in done.stdout
