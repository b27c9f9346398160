"""The client where somebody looks: in a pseudo-terminal, and in tmux."""

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.client import BOXER, Terminal, boxer, environment
from tests.stack import Stack
from tests.stack_access import execution, until

LOOP = "echo begun; while [ ! -e /tmp/never ]; do sleep 0.1; done"


@pytest.fixture
def env(stack: Stack, busybox_reference: str, tmp_path: Path) -> dict[str, str]:
    return environment(stack.base_url, tmp_path)


def newest(stack: Stack, tmp_path: Path, label: str) -> str:
    listed = boxer(stack.base_url, tmp_path, "ps", "-n", "1", "--label", label).stdout.decode()
    return listed.splitlines()[1].split()[0]


def test_output_is_seen_before_the_run_ends_and_ctrl_c_cancels_it(
    stack: Stack, env: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["run", "--label", "seen=live", "busybox", "--", "/bin/sh", "-c", LOOP]
    with Terminal(*BOXER, *arguments, cwd=tmp_path, env=env) as terminal:
        terminal.wait_for("begun")
        exec_id = newest(stack, tmp_path, "seen=live")
        assert execution(stack, exec_id)["status"] == "running"
        terminal.press("\x03")
        assert terminal.wait() == 130
        assert f"cancelling {exec_id}" in terminal.seen
        assert "Traceback" not in terminal.seen
    until(lambda: execution(stack, exec_id)["status"] == "cancelled", "it is cancelled")
    assert bytes(execution(stack, exec_id)["stdout"]) == b"begun\n"


def test_sigterm_cancels_it_too(stack: Stack, env: dict[str, str], tmp_path: Path) -> None:
    arguments = ["run", "--label", "seen=term", "busybox", "--", "/bin/sh", "-c", LOOP]
    with Terminal(*BOXER, *arguments, cwd=tmp_path, env=env) as terminal:
        terminal.wait_for("begun")
        terminal.process.terminate()
        assert terminal.wait() == 128 + 15
    exec_id = newest(stack, tmp_path, "seen=term")
    assert execution(stack, exec_id)["status"] == "cancelled"


def test_the_exit_code_is_the_programs_in_a_terminal_too(
    env: dict[str, str], tmp_path: Path
) -> None:
    with Terminal(
        *BOXER, "run", "busybox", "--", "/bin/sh", "-c", "exit 9", cwd=tmp_path, env=env
    ) as terminal:
        assert terminal.wait() == 9


def test_an_upload_has_a_bar_in_a_terminal_and_none_in_a_pipe(
    stack: Stack, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "large.bin").write_bytes(bytes(3_000_000))
    arguments = ["run", "-f", "large.bin", "busybox", "--", "wc", "-c", "/large.bin"]
    with Terminal(*BOXER, *arguments, cwd=tmp_path, env=env) as terminal:
        assert terminal.wait() == 0
        assert "large.bin" in terminal.seen.partition("3000000 /large.bin")[0]
        assert "3.0/3.0 MB" in terminal.seen
        assert "3000000 /large.bin" in terminal.seen
    piped = boxer(stack.base_url, tmp_path, *arguments)
    assert (piped.stdout, piped.stderr) == (b"3000000 /large.bin\n", b"")


def test_errors_have_colours_in_a_terminal_unless_they_are_not_wanted(
    env: dict[str, str], tmp_path: Path
) -> None:
    with Terminal(*BOXER, "logs", "boxer-none", cwd=tmp_path, env=env) as coloured:
        assert coloured.wait() == 125
    with Terminal(
        *BOXER, "logs", "boxer-none", cwd=tmp_path, env={**env, "NO_COLOR": "1"}
    ) as uncoloured:
        assert uncoloured.wait() == 125
    assert "\x1b[1;31mboxer:" in coloured.seen
    assert "\x1b[31m" not in uncoloured.seen
    assert "31mboxer:" not in uncoloured.seen
    assert "boxer-none" in uncoloured.seen


def test_what_a_server_says_of_others_cant_drive_the_terminal(
    env: dict[str, str], tmp_path: Path, stack: Stack
) -> None:
    nasty = "\x1b]0;owned\x07[bold red]"
    boxer(stack.base_url, tmp_path, "run", "--label", "seen=nasty", "busybox", "--", "echo", nasty)
    with Terminal(*BOXER, "ps", "--label", "seen=nasty", cwd=tmp_path, env=env) as terminal:
        assert terminal.wait() == 0
    assert "\x1b]" not in terminal.seen
    assert "[bold red]" in terminal.seen


def test_in_tmux(stack: Stack, env: dict[str, str], tmp_path: Path) -> None:
    socket = tmp_path / "tmux"
    tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
    script = f"{LOOP}"
    command = shlex.join([*BOXER, "run", "busybox", "--", "/bin/sh", "-c", script])

    def call(*arguments: str) -> str:
        done = subprocess.run(
            [*tmux, *arguments], env=env, capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout

    call("new-session", "-d", "-x", "120", "-y", "30", "-c", str(tmp_path), "/bin/sh")
    try:
        call("send-keys", f"{command}; echo code=$?", "Enter")
        until(lambda: "\nbegun" in call("capture-pane", "-p"), "live output", timeout=60)
        call("send-keys", "C-c")
        until(lambda: "code=130" in call("capture-pane", "-p"), "the exit code", timeout=60)
        assert "cancelling boxer-" in call("capture-pane", "-p")
    finally:
        call("kill-server")
