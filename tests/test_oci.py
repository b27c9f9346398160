"""What a sandbox and a command in it look like as OCI runtime configuration."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from executions.sandbox import oci
from executions.sandbox.spec import Limits, RunSpec

LIMITS = Limits(cpu_cores=1.0, memory_mb=64, pids_limit=7, wall_clock_secs=5, nofile=99)
CAPABILITIES = {"bounding", "effective", "inheritable", "permitted", "ambient"}


def sandbox(netns: bool = True, binds: tuple[oci.Bind, ...] = ()) -> dict[str, Any]:
    return oci.sandbox(
        rootfs=Path("/home/root"),
        output=Path("/home/output"),
        tools=Path("/home/tools"),
        tmp_bytes=4096,
        binds=binds,
        netns=netns,
    )


def command(*cmd: str, env: tuple[str, ...] = (), image: tuple[str, ...] = ()) -> dict[str, Any]:
    return oci.command(RunSpec("boxer-1", cmd, env, "/work dir", "none", LIMITS), image)


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
    for process in (sandbox()["process"], command("id")):
        assert process["capabilities"] == {kind: [] for kind in CAPABILITIES}
        assert process["noNewPrivileges"] is True


def test_a_command_is_nobody_and_the_first_process_is_not() -> None:
    assert command("id")["user"] == {"uid": 65534, "gid": 65534}
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


def test_the_wrapper_takes_limits_and_directory_before_the_command() -> None:
    shell, option, script, name, *arguments = command("echo", "-n", "")["args"]
    assert (shell, option, name) == ("/dev/.boxer/sh", "-c", "boxer")
    assert arguments == ["99", "7", "/work dir", "echo", "-n", ""]
    assert "$(" not in script


def test_no_word_of_a_request_is_in_the_wrapper_s_script() -> None:
    plain = command("id")["args"][2]
    assert command("$(reboot)", "`x`", env=("A=$(reboot)",))["args"][2] == plain


@pytest.mark.parametrize("name", ["a-b", "a b", "1a", "a.b", "ü", "IFS", "PWD", "SHLVL", "OPTIND"])
def test_names_that_a_shell_would_change_go_around_it(name: str) -> None:
    process = command("id", "x", env=(f"{name}=v", "PATH=/p"))
    assert process["env"] == ["PATH=/p"]
    assert process["args"][7:] == ["PATH=/p", f"{name}=v", "id", "x"]
    assert "env -i --" in process["args"][2]


def test_names_that_a_shell_keeps_stay_in_the_environment() -> None:
    process = command("id", env=("A=1", "_b2=\n"))
    assert process["env"] == [f"PATH={oci.PATH}", "A=1", "_b2=\n"]
    assert "env -i" not in process["args"][2]


@pytest.mark.parametrize("env", [(), ("a-b=1",)])
def test_the_wrapper_is_a_shell_script(env: tuple[str, ...]) -> None:
    assert shlex.split(command("id", env=env)["args"][2], comments=True)


def test_whatever_bytes_a_word_holds_the_configuration_is_json() -> None:
    words = ("\x01\x7f", "\U0001f600", '"\\', "\udc80")
    process = json.loads(oci.as_json(command(*words)))
    assert process["args"][-4:] == list(words)
