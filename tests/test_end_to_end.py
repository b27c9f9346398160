"""A program runs in a sandbox, over HTTP: what it is given, what it may do, how its end is told."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.made_images import PATH, busybox_entries, directory, oci_image
from tests.registry import Registry
from tests.stack import Stack
from tests.stack_access import execution, newest_execution, query, until, upload


@pytest.fixture(scope="module")
def image(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A busybox whose configuration has variables of its own."""
    layout = tmp_path_factory.mktemp("coloured") / "layout"
    config = {"Env": [PATH, "COLOUR=blue", "SHAPE=round"], "WorkingDir": "/usr"}
    entries = [*busybox_entries(), directory("open", 0o777)]
    digest = registry.push(oci_image(layout, [entries], config), "team/coloured:1")
    # By its digest: no run of these tests asks the registry what a tag means now.
    return f"{registry.address}/team/coloured@{digest}"


@pytest.fixture
def shell(stack: Stack, image: str) -> Any:
    """Runs a line of shell in a sandbox: status and answer."""

    def run(script: str, **request: Any) -> tuple[int, Any]:
        return stack.run(image=image, cmd=["sh", "-c", script], **request)

    return run


@pytest.fixture
def printed(shell: Any) -> Any:
    """What a line of shell printed, all having gone well."""

    def run(script: str, **request: object) -> str:
        status, answer = shell(script, **request)
        assert (status, answer.get("exit_code")) == (200, 0), answer
        return str(answer["stdout"])

    return run


# ── The answer ───────────────────────────────────────────────────────────────────────────────────


def test_an_answer_tells_how_the_program_ended_and_what_it_cost(stack: Stack, shell: Any) -> None:
    status, answer = shell(
        "echo out; echo err >&2; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
    )
    assert status == 200
    digest = answer["image_digest"]
    assert digest.startswith("sha256:")
    assert {key: answer[key] for key in ("exit_code", "stdout", "stderr", "status", "outcome")} == {
        "exit_code": 0,
        "stdout": "out\n",
        "stderr": "err\n",
        "status": "finished",
        "outcome": "exited",
    }
    assert answer["signal"] is None
    for cost in ("wall_ms", "cpu_ms", "max_memory_bytes", "start_ms"):
        assert isinstance(answer[cost], int), cost
        assert answer[cost] > 0, cost
    for wait in ("queue_ms", "pull_ms"):
        assert answer[wait] >= 0, wait
    row = execution(stack, answer["exec_id"])
    assert (row["status"], row["outcome"], row["exit_code"]) == ("finished", "exited", 0)
    assert (row["stdout"], row["stderr"]) == (b"out\n", b"err\n")
    assert row["created_at"] <= row["claimed_at"] <= row["started_at"] <= row["finished_at"]


@pytest.mark.parametrize("code", [1, 42, 127, 255])
def test_an_exit_code_is_answered_as_it_is(shell: Any, code: int) -> None:
    status, answer = shell(f"exit {code}")
    assert (status, answer["exit_code"], answer["outcome"]) == (200, code, "exited")


@pytest.mark.parametrize(("name", "number"), [("SEGV", 11), ("TERM", 15), ("KILL", 9)])
def test_an_end_by_a_signal_names_it(shell: Any, name: str, number: int) -> None:
    status, answer = shell(f"kill -{name} $$; sleep 5")
    assert status == 200
    assert (answer["outcome"], answer["signal"]) == ("signalled", number)
    assert answer["exit_code"] == 128 + number


def test_a_command_that_is_not_there_gives_127_and_says_so(stack: Stack, image: str) -> None:
    status, answer = stack.run(image=image, cmd=["no-such-command", "x"])
    assert (status, answer["exit_code"]) == (200, 127)
    assert "no-such-command" in answer["stderr"]


def test_a_command_that_cannot_be_executed_gives_126(stack: Stack, image: str) -> None:
    status, answer = stack.run(image=image, cmd=["/etc/passwd"])
    assert (status, answer["exit_code"]) == (200, 126)
    assert "/etc/passwd" in answer["stderr"]


def test_arguments_reach_the_program_byte_by_byte(stack: Stack, image: str) -> None:
    arguments = ["", " ", "a b", "$HOME", "`id`", "*", "-n", "--", "ü\n\t'\"\\"]
    status, answer = stack.run(image=image, cmd=["printf", "<%s>", *arguments])
    assert status == 200
    assert answer["stdout"] == "".join(f"<{argument}>" for argument in arguments)


def test_output_is_bytes_stored_as_they_came_and_shown_as_text(stack: Stack, shell: Any) -> None:
    status, answer = shell(r"printf 'a\000b\377\376c\303'; printf '\000\200' >&2")
    assert status == 200
    assert answer["stdout"] == "a\0b\ufffd\ufffdc\ufffd"
    assert answer["stderr"] == "\0\ufffd"
    row = execution(stack, answer["exec_id"])
    assert (row["stdout"], row["stderr"]) == (b"a\0b\xff\xfec\xc3", b"\0\x80")


def test_the_program_reads_an_empty_stdin(printed: Any) -> None:
    assert printed("cat; echo end") == "end\n"


def test_what_a_program_left_in_the_background_ends_with_it(shell: Any) -> None:
    status, answer = shell("sleep 20 & echo started")
    assert (status, answer["stdout"]) == (200, "started\n")
    assert answer["wall_ms"] < 15_000


# ── What it is given ─────────────────────────────────────────────────────────────────────────────


HOME = "HOME=/nonexistent"  # as the image's /etc/passwd has it for nobody


@pytest.mark.parametrize("odd", [[], ["a.b-c=1", "0=zero", "ü=ü"]])
def test_the_environment_is_the_images_with_the_requests_over_it_and_nothing_else(
    stack: Stack, image: str, odd: list[str]
) -> None:
    """Names that no shell takes for variables, too."""
    asked = ["COLOUR=red", "WORDS=a=b c", "EMPTY=", *odd]
    status, answer = stack.run(image=image, cmd=["env"], env=asked)
    assert (status, answer["exit_code"]) == (200, 0)
    assert sorted(answer["stdout"].splitlines()) == sorted([PATH, HOME, "SHAPE=round", *asked])


def test_home_is_the_requests_to_say(stack: Stack, image: str) -> None:
    status, answer = stack.run(image=image, cmd=["env"], env=["HOME=/tmp", "PATH=/bin"])
    assert status == 200
    assert {"HOME=/tmp", "PATH=/bin"} <= set(answer["stdout"].splitlines())


def test_path_is_there_though_the_image_has_none(
    stack: Stack, registry: Registry, tmp_path: Path
) -> None:
    layout = oci_image(tmp_path / "layout", [busybox_entries()], {})
    registry.push(layout, "team/bare:1")
    status, answer = stack.run(image=f"{registry.address}/team/bare:1", cmd=["env"])
    assert (status, sorted(answer["stdout"].splitlines())) == (200, [HOME, PATH])


@pytest.mark.parametrize(
    ("asked", "found"),
    [(None, "/"), ("", "/"), ("/usr/bin", "/usr/bin"), ("/made/on/the/spot", "/made/on/the/spot")],
)
def test_the_working_directory(printed: Any, asked: str | None, found: str) -> None:
    assert printed("pwd", cwd=asked) == f"{found}\n"


def test_the_program_is_nobody_without_any_privilege(printed: Any) -> None:
    status = printed("id -u; id -g; hostname; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status")
    lines = status.split()
    assert lines[:3] == ["65534", "65534", "boxer"]
    facts = dict(zip(lines[3::2], lines[4::2], strict=True))
    assert int(facts["CapEff:"], 16) == int(facts["CapBnd:"], 16) == 0


def test_the_root_is_read_only_and_tmp_shm_and_output_are_not(shell: Any) -> None:
    script = "for d in /tmp /dev/shm /output / /etc /sys /open; do touch $d/x && echo $d; done"
    status, answer = shell(script)
    assert status == 200
    assert answer["stdout"].split() == ["/tmp", "/dev/shm", "/output"]
    # A directory that anybody may write to tells the file system from its permissions.
    assert "/open/x: Read-only file system" in answer["stderr"]


def test_nothing_of_the_host_is_visible(stack: Stack, printed: Any) -> None:
    found = printed("ls / /dev/.boxer; cat /proc/mounts; ps; cat /proc/1/environ | tr '\\0' '\\n'")
    assert str(stack.home) not in found
    assert "BOXER_" not in found
    assert "postgres" not in found
    assert "runsc" not in found


# ── Limits ───────────────────────────────────────────────────────────────────────────────────────


def test_the_wall_clock_ends_a_run_and_what_it_printed_is_kept(stack: Stack, shell: Any) -> None:
    began = time.monotonic()
    status, answer = shell("echo before; echo trouble >&2; sleep 60", limits={"wall_clock_secs": 1})
    assert time.monotonic() - began < 15
    assert (status, answer["code"]) == (408, "timed_out")
    assert "1 s" in answer["error"]
    assert (answer["stdout"], answer["stderr"]) == ("before\n", "trouble\n")
    row = execution(stack, answer["exec_id"])
    assert (row["outcome"], row["stdout"], row["stderr"]) == (
        "timed_out",
        b"before\n",
        b"trouble\n",
    )


@pytest.mark.parametrize("redirect", ["", ">&2"])
def test_an_endless_writer_is_stopped_at_the_output_limit(
    stack: Stack, shell: Any, redirect: str
) -> None:
    began = time.monotonic()
    status, answer = shell(f"echo first {redirect}; yes {redirect}", limits={"wall_clock_secs": 60})
    assert time.monotonic() - began < 40
    assert (status, answer["code"]) == (507, "output_limit")
    row = execution(stack, answer["exec_id"])
    kept = row["stderr"] if redirect else row["stdout"]
    assert row["outcome"] == "output_limit"
    assert kept.startswith(b"first\ny\ny\n")
    assert len(kept) == 10 << 20


def test_out_of_memory_is_told_from_every_other_end(shell: Any) -> None:
    status, answer = shell("echo before; tail /dev/zero", limits={"memory_mb": 32})
    assert status == 200
    assert (answer["outcome"], answer["exit_code"]) == ("out_of_memory", 137)
    assert answer["stdout"] == "before\n"
    assert answer["stderr"] == ""


def test_memory_means_what_the_program_may_use(stack: Stack, python_reference: str) -> None:
    code = "b = bytearray(90 << 20); print(len(b))"
    status, answer = stack.run(
        image=python_reference, cmd=["python3", "-c", code], limits={"memory_mb": 128}
    )
    assert (status, answer["stdout"]) == (200, f"{90 << 20}\n")
    assert answer["max_memory_bytes"] >= 90 << 20


def test_processes_are_limited(shell: Any) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 9 & done; echo unreachable"
    status, answer = shell(script, limits={"pids_limit": 6})
    assert (status, answer["outcome"]) == (200, "exited")
    assert answer["exit_code"] != 0
    assert "can't fork" in answer["stderr"]


def test_a_fork_bomb_ends_at_the_wall_clock_and_the_service_goes_on(
    shell: Any, printed: Any
) -> None:
    status, answer = shell(
        "bomb() { bomb | bomb & }; bomb; sleep 30", limits={"wall_clock_secs": 2}
    )
    assert (status, answer["code"]) == (408, "timed_out")
    assert printed("echo fine") == "fine\n"


def test_open_files_are_limited(printed: Any) -> None:
    assert printed("ulimit -n", limits={"nofile": 77}) == "77\n"


def test_zero_and_null_mean_the_default(stack: Stack, shell: Any) -> None:
    limits = {"memory_mb": 0, "pids_limit": None, "cpu_cores": 0, "wall_clock_secs": None}
    status, answer = shell("true", limits=limits)
    assert status == 200
    row = execution(stack, answer["exec_id"])
    names = ("cpu_cores", "memory_mb", "wall_clock_secs", "pids_limit", "nofile")
    assert [row[name] for name in names] == [1.0, 256, 30, 64, 256]


@pytest.mark.parametrize(
    ("limit", "value", "ceiling"),
    [("memory_mb", 4097, "4096"), ("wall_clock_secs", 601, "600"), ("pids_limit", -1, "1024")],
)
def test_a_limit_beyond_its_ceiling_is_refused_with_the_ceiling_named(
    stack: Stack, shell: Any, limit: str, value: int, ceiling: str
) -> None:
    before = query(stack, "SELECT count(*) FROM executions_execution")
    status, answer = shell("true", limits={limit: value})
    assert status == 400
    assert limit in answer["error"]
    assert ceiling in answer["error"]
    assert query(stack, "SELECT count(*) FROM executions_execution") == before


# ── Network ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def local_server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"from the host")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_network_host_shares_the_hosts_network(printed: Any, local_server: str) -> None:
    assert printed(f"wget -q -O - {local_server}", network="host") == "from the host"


@pytest.mark.parametrize("network", [None, "none"])
def test_without_a_network_nothing_is_reached(
    shell: Any, local_server: str, network: str | None
) -> None:
    status, answer = shell(f"wget -T 5 -q -O - {local_server}", network=network)
    assert (status, answer["stdout"]) == (200, "")
    assert answer["exit_code"] != 0


# ── Files ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path", ["script.txt", "deep/er/and deeper/ü.txt", "tmp/a/b", "etc/passwd"]
)
def test_a_file_appears_read_only_at_its_path(stack: Stack, shell: Any, path: str) -> None:
    content = f"content of {path} \N{SNOWMAN}".encode()
    upload(stack, path, content)
    status, answer = shell(f"cat '/{path}'; echo x > '/{path}'", files=[path])
    assert (status, answer["stdout"]) == (200, content.decode())
    assert answer["exit_code"] != 0
    assert answer["stderr"]


def test_a_script_of_two_hundred_kilobytes_and_its_data_run(stack: Stack, shell: Any) -> None:
    upload(stack, "work/data", b"\0\xff" * 100_000)
    upload(stack, "work/run.sh", b"wc -c < /work/data\n" + b"#" * 200_000)
    status, answer = shell("sh /work/run.sh", files=["/work/run.sh", "work//./data"])
    assert (status, answer["stdout"].strip()) == (200, "200000")


def test_files_that_are_not_there_are_named(shell: Any) -> None:
    status, answer = shell("true", files=["not/there", "nor/here"])
    assert (status, answer["code"]) == (400, "file_not_found")
    assert answer["fields"] == {"files": ["not/there", "nor/here"]}


def test_a_file_where_the_image_has_a_directory_is_refused(stack: Stack, shell: Any) -> None:
    upload(stack, "usr/bin", b"not a directory")
    status, answer = shell("true", files=["usr/bin"])
    assert (status, answer["code"]) == (400, "file_refused")
    assert "usr/bin" in answer["error"]
    assert answer["exec_id"].startswith("boxer-")


def test_a_run_keeps_its_inputs_whatever_becomes_of_their_paths(
    stack: Stack, shell: Any, printed: Any
) -> None:
    upload(stack, "kept.txt", b"as submitted")
    upload(stack, "gone.txt", b"was there")
    with ThreadPoolExecutor(8) as pool:
        # Every worker is busy, so the run waits in the queue while its paths change.
        busy = [pool.submit(shell, "sleep 3") for _ in range(4)]
        until(lambda: unfinished(stack) == 4, "four runs are under way")
        waiting = pool.submit(printed, "cat /kept.txt /gone.txt", files=["kept.txt", "gone.txt"])
        until(lambda: unfinished(stack) == 5, "the fifth is queued")
        assert execution(stack, newest_execution(stack))["status"] == "queued"
        upload(stack, "kept.txt", b"replaced meanwhile")
        query(stack, "DELETE FROM filestore_storedfile WHERE path = 'gone.txt' RETURNING id")
        assert waiting.result() == "as submittedwas there"
        assert [run.result()[0] for run in busy] == [200] * 4
    # It had been uploaded anew: that isn't the run's to delete.
    assert printed("cat /kept.txt", files=["kept.txt"]) == "replaced meanwhile"


def unfinished(stack: Stack) -> int:
    sql = "SELECT count(*) FROM executions_execution WHERE status IN ('queued','pulling','running')"
    return int(query(stack, sql)[0]["count"])
