"""What a run leaves behind: nothing, or its files when it was asked to persist."""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.stack import Stack
from tests.stack_access import download, execution, query, until, upload


@pytest.fixture
def shell(stack: Stack, busybox_reference: str) -> Any:
    def run(script: str, **request: Any) -> tuple[int, Any]:
        return stack.run(image=busybox_reference, cmd=["sh", "-c", script], **request)

    return run


@pytest.fixture
def python(stack: Stack, python_reference: str) -> Any:
    """Runs a Python program that persists; the answer to one that went well."""

    def run(code: str) -> Any:
        status, answer = stack.run(
            image=python_reference, cmd=["python3", "-c", code], persist=True
        )
        assert (status, answer.get("exit_code")) == (200, 0), answer
        return answer

    return run


def kept(stack: Stack, content: bytes) -> list[str]:
    """Where contents are known or lie, in the database and on disk."""
    sha256 = hashlib.sha256(content).hexdigest()
    rows = query(stack, "SELECT id FROM filestore_blob WHERE sha256 = %s", sha256)
    files = (stack.home / "contents").rglob(f"*{sha256}*")
    return [f"blob {row['id']}" for row in rows] + [str(file) for file in files]


def left_out(stack: Stack, answer: Any) -> dict[str, str]:
    found = execution(stack, answer["exec_id"])["left_out"]
    return {entry["path"]: entry["reason"] for entry in found}


def test_without_persist_inputs_and_outputs_are_gone_when_the_answer_comes(
    stack: Stack, shell: Any
) -> None:
    upload(stack, "gone/in.txt", b"an input of a run that doesn't persist")
    assert kept(stack, b"an input of a run that doesn't persist")
    status, answer = shell(
        "cat /gone/in.txt > /output/copy; cat /output/copy", files=["gone/in.txt"]
    )
    assert (status, answer["stdout"]) == (200, "an input of a run that doesn't persist")
    assert download(stack, "gone/in.txt")[0] == 404
    assert download(stack, f"output/{answer['exec_id']}/copy")[0] == 404
    until(lambda: not kept(stack, b"an input of a run that doesn't persist"), "contents go")
    inputs = """
        SELECT input.* FROM executions_executioninput input
        JOIN executions_execution run ON run.id = input.execution_id WHERE exec_id = %s
    """
    [row] = query(stack, inputs, answer["exec_id"])
    assert (row["size"], row["blob_id"]) == (38, None)


@pytest.mark.parametrize(
    ("script", "expected", "limits"),
    [
        ("sleep 9", 408, {"wall_clock_secs": 1}),
        ("yes", 507, {}),
        ("tail /dev/zero", 200, {"memory_mb": 32}),
        ("exit 3", 200, {}),
    ],
)
def test_inputs_go_whatever_the_end(
    stack: Stack, shell: Any, script: str, expected: int, limits: dict[str, int]
) -> None:
    content = f"input of {script}".encode()
    upload(stack, "end/in.txt", content)
    status, _ = shell(f"cat /end/in.txt; {script}", files=["end/in.txt"], limits=limits)
    assert status == expected
    assert download(stack, "end/in.txt")[0] == 404
    until(lambda: not kept(stack, content), "contents go")


def test_inputs_stay_when_a_request_is_refused(stack: Stack, shell: Any) -> None:
    upload(stack, "refused/in.txt", b"still mine")
    assert shell("true", files=["refused/in.txt", "refused/not there"])[0] == 400
    assert download(stack, "refused/in.txt") == (200, b"still mine")


def test_persist_keeps_inputs_and_outputs_with_every_byte(stack: Stack, shell: Any) -> None:
    content = b"\0\xff\r\n" * 1000
    upload(stack, "kept/in.bin", content)
    script = """
        cd /output; cat /kept/in.bin > copy.bin; : > empty; mkdir -p a/b
        echo deep > 'a/b/with space and ü.txt'; echo dotted > .hidden; chmod 000 .hidden
    """
    status, answer = shell(script, files=["kept/in.bin"], persist=True)
    assert (status, answer["exit_code"]) == (200, 0)
    base = f"output/{answer['exec_id']}"
    assert download(stack, "kept/in.bin") == (200, content)
    assert download(stack, f"{base}/copy.bin") == (200, content)
    assert download(stack, f"{base}/empty") == (200, b"")
    assert download(stack, f"{base}/a/b/with space and ü.txt") == (200, b"deep\n")
    assert download(stack, f"{base}/.hidden") == (200, b"dotted\n")
    assert left_out(stack, answer) == {}


def test_what_had_been_written_is_kept_when_the_wall_clock_ends_a_run(
    stack: Stack, shell: Any
) -> None:
    status, answer = shell(
        "echo early > /output/early; sleep 20", persist=True, limits={"wall_clock_secs": 1}
    )
    assert status == 408
    assert download(stack, f"output/{answer['exec_id']}/early") == (200, b"early\n")


def test_equal_contents_are_stored_once(stack: Stack, shell: Any) -> None:
    upload(stack, "once/in.txt", b"equal contents")
    status, answer = shell(
        "cat /once/in.txt > /output/a; cat /once/in.txt > /output/b",
        files=["once/in.txt"],
        persist=True,
    )
    assert status == 200
    assert len(kept(stack, b"equal contents")) == 2  # a row and a file
    assert download(stack, f"output/{answer['exec_id']}/b") == (200, b"equal contents")


def test_two_runs_that_share_an_input_both_have_it(stack: Stack, shell: Any) -> None:
    upload(stack, "shared.txt", b"for both")
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(shell, "sleep 3; cat /shared.txt", files=["shared.txt"])
        sql = "SELECT 1 FROM executions_executioninput WHERE path = 'shared.txt'"
        until(lambda: query(stack, sql), "the first holds it")
        status, answer = shell("cat /shared.txt", files=["shared.txt"])
        assert (status, answer["stdout"]) == (200, "for both")
        # The quick one has deleted the path; the slow one has its contents nevertheless.
        assert download(stack, "shared.txt")[0] == 404
        status, answer = slow.result()
        assert (status, answer["stdout"]) == (200, "for both")
    until(lambda: not kept(stack, b"for both"), "contents go with the last who had them")


def test_links_fifos_sockets_and_odd_names_are_left_out_and_said_so(
    stack: Stack, python: Any
) -> None:
    code = r"""
import os, socket
os.chdir("/output")
os.symlink("/etc/passwd", "passwd"); os.symlink("/proc/self/environ", "environ")
os.symlink("good", "link to good"); os.symlink("loop", "loop"); os.symlink("/", "root")
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
open("good", "w").write("good")
open(b"bad\xff", "w").write("x")
open("line\nfeed", "w").write("x")
os.mkdir("d"); os.symlink("..", "d/up"); open("d/fine", "w").write("fine")
"""
    answer = python(code)
    base = f"output/{answer['exec_id']}"
    assert download(stack, f"{base}/good") == (200, b"good")
    assert download(stack, f"{base}/d/fine") == (200, b"fine")
    found = left_out(stack, answer)
    for name in ("passwd", "environ", "link to good", "loop", "root", "d/up"):
        assert found.pop(name) == "it is a symbolic link", name
        assert download(stack, f"{base}/{name}")[0] == 404, name
    # These exist inside gVisor only, or in the directory too, depending on its release.
    assert found.pop("fifo", "it is a FIFO") == "it is a FIFO"
    assert found.pop("socket", "it is a socket") == "it is a socket"
    assert {download(stack, f"{base}/{name}")[0] for name in ("fifo", "socket")} == {404}
    assert set(found.values()) == {"its name isn't plain UTF-8"}
    assert len(found) == 2


def test_hard_links_are_files_like_any_other_of_the_programs_own(stack: Stack, python: Any) -> None:
    answer = python(
        "import os; open('/output/a', 'w').write('x'); os.link('/output/a', '/output/b')"
    )
    base = f"output/{answer['exec_id']}"
    assert download(stack, f"{base}/a") == download(stack, f"{base}/b") == (200, b"x")


def test_a_sparse_file_of_a_terabyte_is_left_out(stack: Stack, python: Any) -> None:
    code = """
import os
try:
    os.truncate(os.open("/output/huge", os.O_CREAT | os.O_RDWR), 1 << 40)
except OSError as error:
    print(error)
open("/output/small", "w").write("small")
"""
    answer = python(code)
    base = f"output/{answer['exec_id']}"
    assert download(stack, f"{base}/small") == (200, b"small")
    assert download(stack, f"{base}/huge")[0] == 404
    if not answer["stdout"]:
        assert "beyond the limit" in left_out(stack, answer)["huge"]


def test_directories_deeper_than_anybody_needs_break_nothing(stack: Stack, python: Any) -> None:
    code = """
import os
os.chdir("/output")
for _ in range(500):
    os.mkdir("d"); os.chdir("d")
open("bottom", "w").write("x")
open("/output/top", "w").write("top")
"""
    answer = python(code)
    assert download(stack, f"output/{answer['exec_id']}/top") == (200, b"top")
    [(path, reason)] = left_out(stack, answer).items()
    assert re.fullmatch(r"(d/)+d", path)
    assert "deeper than" in reason


def test_a_full_output_directory_says_enospc_and_the_run_goes_on(stack: Stack, shell: Any) -> None:
    script = """
        dd if=/dev/zero of=/output/big bs=1M count=80 2>&1 | grep -o 'No space left on device'
        rm /output/big; echo fits > /output/small; echo end
    """
    status, answer = shell(script, persist=True, limits={"memory_mb": 512})
    assert (status, answer["exit_code"]) == (200, 0)
    assert answer["stdout"] == "No space left on device\nend\n"
    assert download(stack, f"output/{answer['exec_id']}/small") == (200, b"fits\n")


def test_the_number_of_output_files_is_bounded_by_the_kernel(stack: Stack, python: Any) -> None:
    code = """
import errno
try:
    for number in range(2000):
        open(f"/output/{number}", "w").close()
except OSError as error:
    print(number, errno.errorcode[error.errno])
"""
    assert python(code)["stdout"] == "1024 ENOSPC\n"


def test_output_is_no_place_for_uploads(stack: Stack, shell: Any) -> None:
    _, answer = shell("echo mine > /output/f", persist=True)
    path = f"output/{answer['exec_id']}/f"
    response = httpx.post(f"{stack.base_url}/files", data={"path": path}, files={"file": b"forged"})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_path")
    assert download(stack, path) == (200, b"mine\n")
