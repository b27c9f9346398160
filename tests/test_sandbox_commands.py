"""The command of a run arrives as it was asked for: words, variables, directory."""

import json
from pathlib import Path

import pytest

from executions.sandbox.oci import PATH
from executions.sandbox.spec import End
from tests.fixtures_sandbox import House, file

TELL = """
import sys, os, json
os.environ.pop("LC_CTYPE", None)  # Python's own doing
print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))
"""
NOBODYS_HOME = "/nonexistent"
"""As the image's /etc/passwd says."""

ODD_WORDS = [
    "",
    " ",
    "a\nb",
    "-n",
    "--",
    "-",
    "*",
    "$(id)",
    "`id`",
    "'\"\\",
    "ü",
    "\x01\x7f",
    "a=b",
]
ODD_VARIABLES = {
    "a-b": "1",
    "a b": "2",
    "a.b": "3",
    "1": "one",
    "IFS": "/",
    "PWD": "/nowhere",
    "OLDPWD": "x",
    "SHLVL": "99",
    "OPTIND": "not a number",
    "PS4": "$(id)",
    "ENV": "/etc/passwd",
    "LINENO": "7",
    "RANDOM": "4",
    "BASH_FUNC_x%%": "() { echo; }",
    "LD_PRELOAD": "/nowhere.so",
    "__boxer_name": "mine",
    "_": "underscore",
    "lines": "a\n\nb\n",
    "empty": "",
    "big": "x" * 102_400,
}
PLAIN_VARIABLES = {
    "A": "a b",
    "lines": "a\n\nb\n",
    "empty": "",
    "big": "x" * 102_400,
    "_x1": "'\"$",
}


@pytest.mark.parametrize("variables", [PLAIN_VARIABLES, ODD_VARIABLES], ids=["plain", "odd"])
def test_words_and_variables_arrive_exactly(house: House, variables: dict[str, str]) -> None:
    env = [f"{name}={value}" for name, value in variables.items()]
    result = house.py(TELL, *ODD_WORDS, env=env)
    assert result.exit_code == 0, result.stderr
    words, environment, _ = json.loads(result.stdout)
    assert words == ODD_WORDS
    assert environment == {"PATH": PATH, "HOME": NOBODYS_HOME, **variables}


def test_hundreds_of_words_and_variables_arrive(house: House) -> None:
    words = [f"{number}" * 30 for number in range(300)]
    env = [f"odd-{number}=v" for number in range(300)]
    result = house.py(TELL, *words, env=env)
    told, environment, _ = json.loads(result.stdout)
    assert told == words
    assert len(environment) == 302


def test_the_image_s_variables_are_the_base(house: House) -> None:
    result = house.sh("echo $A $B $PATH", image_env=["A=image", "B=image"], env=["B=request"])
    assert result.stdout.decode().split() == ["image", "request", PATH]


@pytest.mark.parametrize("env", [(), ("a-b=1",)], ids=["plain", "odd"])
def test_a_command_is_found_on_the_run_s_own_path(house: House, env: tuple[str, ...]) -> None:
    inputs = [file("x/sh", b"no program"), file("y/sh", b"")]
    path = "PATH=/nowhere:/x::/bin"
    assert house.run("sh", "-c", "exit 5", env=[path, *env], inputs=inputs).exit_code == 5
    assert house.run("sh", env=["PATH=/x", *env], inputs=inputs).exit_code == 127


def test_the_image_s_programs_run_and_not_our_busybox_s(house: House, tmp_path: Path) -> None:
    result = house.py("import os; print(os.readlink('/proc/self/exe'))")
    assert b"python3" in result.stdout
    assert house.run("wget", rootfs=house.python).exit_code == 127


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("no-such-command", 127, b"no-such-command: command not found"),
        ("/no/such", 127, b"/no/such: not found"),
        ("-x", 127, b"-x: command not found"),
        ("-x/y", 127, b"-x/y: not found"),
        ("--help", 127, b"--help: command not found"),
        ("a;b $(c)", 127, b"a;b $(c): command not found"),
        ("/etc", 126, b"/etc: Permission denied"),
        ("/etc/passwd", 126, b"/etc/passwd: Permission denied"),
        ("./bin", 126, b"./bin: Permission denied"),
    ],
)
def test_what_cannot_be_run_ends_as_in_a_shell(
    house: House, command: str, code: int, said: bytes
) -> None:
    result = house.run(command)
    assert (result.end, result.exit_code) == (End.EXITED, code)
    assert result.stderr.startswith(b"boxer: ")
    assert result.stderr.endswith(said + b"\n")


@pytest.mark.parametrize(("command", "code"), [("-x/y", 127), ("/etc", 126), ("no=such", 127)])
def test_what_cannot_be_run_ends_so_too_with_odd_variables(
    house: House, command: str, code: int
) -> None:
    assert house.run(command, env=["a-b=1"]).exit_code == code


def test_a_command_that_looks_like_a_variable_runs_or_says_that_it_cannot(house: House) -> None:
    script = "cp /bin/busybox /tmp/echo=x; exec /tmp/echo=x"
    assert house.sh(script).exit_code == 127  # no applet of that name: it was busybox that ran
    result = house.run("/etc=x", env=["a-b=1"])
    assert (result.exit_code, result.stdout) == (126, b"")


def test_a_relative_command_starts_at_the_working_directory(house: House) -> None:
    assert house.run("./echo", "hi", cwd="/bin").stdout == b"hi\n"


@pytest.mark.parametrize(
    "cwd",
    ["/", "/usr/bin", "/missing/a/b", "/tmp/a/b", "/output/a", "/dev/shm/x", "/missing dir/ü'\"$x"],
)
def test_a_working_directory_is_there_or_is_made(house: House, cwd: str) -> None:
    result = house.py(TELL, cwd=cwd)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)[2] == cwd


@pytest.mark.parametrize("cwd", ["/tmp/a", "/output/a"])
def test_a_working_directory_that_was_made_in_a_writable_place_is_writable(
    house: House, cwd: str
) -> None:
    assert house.sh("echo x > file && cat file", cwd=cwd).stdout == b"x\n"


@pytest.mark.parametrize(
    "cwd", ["/etc/passwd", "/etc/passwd/x", "/proc/x", "/sys/x", "/dev/x", "/proc/1/root"]
)
def test_a_working_directory_that_cannot_be_is_a_clear_failure(house: House, cwd: str) -> None:
    result = house.run("echo", "must not run", cwd=cwd)
    assert (result.end, result.exit_code, result.stdout) == (End.EXITED, 126, b"")
    assert f"can't cd to {cwd}".encode() in result.stderr


def test_an_input_at_the_working_directory_is_a_clear_failure(house: House) -> None:
    result = house.run("echo", cwd="/work", inputs=[file("work")])
    assert result.exit_code == 126
    assert b"can't cd to /work" in result.stderr
