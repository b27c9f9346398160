"""What a sandbox and a command in it look like as OCI runtime configuration."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executions.sandbox import oci
from executions.sandbox.spec import Limits, RunSpec

LIMITS = Limits(cpu_cores=1.0, memory_mb=64, pids_limit=7, wall_clock_secs=5, nofile=99)
CAPABILITIES = {"bounding", "effective", "inheritable", "permitted", "ambient"}


def sandbox(netns: bool = True, binds: tuple[oci.Bind, ...] = ()) -> dict[str, Any]:
    return oci.sandbox(
        rootfs=Path("/home/root"),
        output=Path("/home/output"),
        tools=Path("/home/tools"),
        run=Path("/home/run"),
        tmp_bytes=4096,
        binds=binds,
        netns=netns,
    )


def command(
    *cmd: str, env: tuple[str, ...] = (), image: tuple[str, ...] = (), cwd: str = "/"
) -> str:
    return oci.command(RunSpec("boxer-1", cmd, env, cwd, "none", LIMITS), image)


SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))"


def become(
    *words: str, env: tuple[str, ...] = (), cwd: str = "/"
) -> tuple[list[str], dict[str, str], str]:
    """What a command is given by the script: its arguments, variables and directory.

    The script runs here, in the busybox that sandboxes have, which stands for `env` as well.
    """
    script = command(sys.executable, "-c", SHOW, *words, env=env, cwd=cwd)
    script = script.replace("/dev/.boxer/env", "busybox env")
    shell = ["busybox", "sh", "-c", "read -r __boxer_go; . /dev/fd/9"]
    with tempfile.TemporaryFile() as file:
        file.write(script.encode())
        file.seek(0)
        shell[-1] = f"read -r __boxer_go; . /dev/fd/{file.fileno()}"
        done = subprocess.run(
            shell,
            input=b"\n",
            env={"PATH": oci.PATH, "HOME": "/found"},
            capture_output=True,
            pass_fds=[file.fileno()],
        )
    assert done.returncode == 0, done.stderr
    arguments, variables, directory = json.loads(done.stdout)
    variables.pop("LC_CTYPE", None)  # Python's own, where the locale is C
    return arguments, variables, directory


def test_the_request_s_variables_win_over_the_image_s() -> None:
    merged = oci.environment(["PATH=/image", "A=1", "B=2"], ["B=3", "C=4"])
    assert merged == ["PATH=/image", "A=1", "B=3", "C=4"]


def test_path_is_always_there() -> None:
    assert oci.environment([], []) == [f"PATH={oci.PATH}"]
    assert oci.environment(["PATH=/image"], ["PATH=/request"]) == ["PATH=/request"]


def test_a_name_appears_once_and_its_last_value_counts() -> None:
    assert oci.environment([], ["A=1", "A=2"])[1:] == ["A=2"]


@pytest.mark.parametrize("pair", ["A=", "A==", "A=b=c", "A=\n", "a-b=1", "a b= c ", "ü=ö"])
def test_odd_names_and_values_are_kept_as_they_are(pair: str) -> None:
    assert oci.environment([], [pair])[1:] == [pair]


def test_a_variable_of_the_image_without_a_value_is_empty() -> None:
    assert oci.environment(["A"], [])[1:] == ["A="]


def test_neither_the_first_process_nor_a_command_has_capabilities() -> None:
    for process in (sandbox()["process"], oci.shell()):
        assert process["capabilities"] == {kind: [] for kind in CAPABILITIES}
        assert process["noNewPrivileges"] is True


def test_a_command_is_nobody_and_the_first_process_is_not() -> None:
    assert oci.shell()["user"] == {"uid": 65534, "gid": 65534}
    assert sandbox()["process"]["user"] == {"uid": 0, "gid": 0}


def test_nothing_of_ours_is_writable_but_output_and_memory() -> None:
    config = sandbox(binds=(oci.Bind(Path("/home/staged/0"), "/tmp/in"),))
    assert config["root"] == {"path": "/home/root", "readonly": True}
    writable = {m["destination"] for m in config["mounts"] if "ro" not in m["options"]}
    assert writable == {"/proc", "/dev", "/dev/shm", "/tmp", "/output"}


def test_what_is_writable_in_memory_is_bounded() -> None:
    sizes = {m["destination"]: m["options"] for m in sandbox()["mounts"] if m["type"] == "tmpfs"}
    assert "size=4096" in sizes["/tmp"]
    assert "size=4096" in sizes["/dev/shm"]


def test_inputs_are_mounted_over_tmp_and_not_beneath_it() -> None:
    config = sandbox(binds=(oci.Bind(Path("/home/staged/0"), "/tmp/in"),))
    destinations = [mount["destination"] for mount in config["mounts"]]
    assert destinations.index("/tmp") < destinations.index("/tmp/in")


def test_every_namespace_is_its_own() -> None:
    kinds = {namespace["type"] for namespace in sandbox()["linux"]["namespaces"]}
    assert kinds == {"pid", "ipc", "uts", "mount", "network"}
    shared = {namespace["type"] for namespace in sandbox(netns=False)["linux"]["namespaces"]}
    assert shared == {"pid", "ipc", "uts", "mount"}
    assert all(set(entry) == {"type"} for entry in sandbox()["linux"]["namespaces"])


def test_the_hostname_is_boxer() -> None:
    assert sandbox()["hostname"] == "boxer"


def test_the_waiting_shell_knows_nothing_of_a_run() -> None:
    shell = oci.shell()
    assert shell["args"][0] == "/dev/.boxer/sh"
    assert shell["env"] == [f"PATH={oci.PATH}"]
    assert "/dev/.boxer/run/command" in shell["args"][2]


def test_limits_come_before_the_command() -> None:
    script = command("true")
    assert "set -- 99 7 / true" in script
    assert script.index('ulimit -n "$1" && ulimit -u "$2"') < script.index("exec -a")


@pytest.mark.parametrize("name", ["a-b", "a b", "1a", "a.b", "ü", "IFS", "PWD", "SHLVL", "OPTIND"])
def test_names_that_a_shell_would_change_arrive_all_the_same(name: str) -> None:
    _, variables, _ = become(env=(f"{name}=v", "OTHER=\n"))
    assert variables == {"PATH": oci.PATH, "HOME": "/found", name: "v", "OTHER": "\n"}


def test_names_that_a_shell_keeps_cost_no_other_exec() -> None:
    assert "/dev/.boxer/env" not in command("id", env=("A=1", "_b2=\n"))
    _, variables, _ = become(env=("A=1", "_b2=\n", "HOME=/mine"))
    assert variables == {"PATH": oci.PATH, "HOME": "/mine", "A": "1", "_b2": "\n"}


def test_the_directory_is_gone_to_and_is_not_in_the_environment() -> None:
    _, variables, directory = become(cwd="/usr/share")
    assert directory == "/usr/share"
    assert "PWD" not in variables


WORDS = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20
) | st.sampled_from(["-n", "--", "$(reboot)", "`x`", "'", '"', "\\", "a\nb", "*", "", "$HOME"])
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True) | st.sampled_from(
    ["a-b", "x y", "IFS", "PWD"]
)


@settings(max_examples=40, deadline=None)
@given(words=st.lists(WORDS, max_size=5), env=st.dictionaries(NAMES, WORDS, max_size=4))
def test_words_and_values_arrive_exactly(words: list[str], env: dict[str, str]) -> None:
    for name in ("PATH", "HOME", "LC_CTYPE", "LC_ALL", "LANG", "PYTHONHOME", "PYTHONPATH"):
        env.pop(name, None)
    pairs = tuple(f"{name}={value}" for name, value in env.items())
    arguments, variables, _ = become(*words, env=pairs)
    assert arguments == words
    assert variables == {"PATH": oci.PATH, "HOME": "/found", **env}
