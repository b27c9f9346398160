"""Limits on cgroup v2, in a virtual machine: what most hosts have, whatever this one mounts."""

import platform
import shutil
from typing import Any

import pytest

from tests.qemu import guest
from tests.qemu.kernel_package import NoKernel, kernel

pytestmark = [pytest.mark.qemu, pytest.mark.slow]

MIB = 1 << 20
Answer = dict[str, Any]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """All answers of one boot. What the machine needs is installed by `scripts/setup.sh --dev`."""
    if platform.machine() != "x86_64":
        pytest.skip("the machine that is emulated runs this host's programs: x86_64 only")
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    try:
        guests_kernel = kernel()
    except NoKernel as error:
        pytest.skip(str(error))
    return guest.boot(guests_kernel, tmp_path_factory.mktemp("guest"))


def ask(answers: dict[str, Answer], question: str) -> Answer:
    answer = answers[question]
    assert "error" not in answer, answer["error"]
    return answer


def counted(file: str) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in file.splitlines())}


def test_a_command_runs_and_its_output_and_exit_code_come_back(answers: dict[str, Answer]) -> None:
    answer = ask(answers, "a_run")
    assert answer["version"] == 2
    assert (answer["end"], answer["exit_code"], answer["detail"]) == ("exited", 3, "")
    assert (answer["stdout"], answer["stderr"]) == ("hello\n", "oops\n")


def test_controllers_are_handed_down_from_the_root(answers: dict[str, Answer]) -> None:
    answer = ask(answers, "a_run")
    assert answer["before"] == ""
    assert answer["root"].split() == ["cpu", "memory", "pids"]
    assert answer["group"].split() == ["cpu", "memory", "pids"]


def test_every_limit_of_a_run_is_set(answers: dict[str, Answer]) -> None:
    answer = ask(answers, "a_run")
    files = answer["files"]
    assert files["cpu.max"] == "150000 100000"
    assert files["pids.max"] == "4096"
    assert files["memory.swap.max"] == "0"
    # The program's 64 MiB, their page tables, and gVisor's share on top of what it uses already.
    extra = int(files["memory.max"]) - (64 + 1 + 24) * MIB
    assert 0 < extra < 64 * MIB


def test_gvisor_is_in_the_cgroup_from_its_first_moment(answers: dict[str, Answer]) -> None:
    booted = ask(answers, "a_run")["booted"]
    assert len(booted["pids"].split()) >= 3
    assert booted["memory"] > 8 * MIB


def test_cpu_time_and_memory_are_measured(answers: dict[str, Answer]) -> None:
    answer = ask(answers, "memory_within_the_limit")
    assert 0 < answer["cpu_ms"] <= 2 * answer["wall_ms"] + 100
    # 40 MiB less what the boot had used and gave back.
    assert 32 * MIB <= answer["max_memory_bytes"] < 64 * MIB


def test_a_program_may_use_what_it_was_given(answers: dict[str, Answer]) -> None:
    answer = ask(answers, "memory_within_the_limit")
    assert (answer["end"], answer["exit_code"]) == ("exited", 0)
    assert "2+0 records in" in answer["stdout"]
    assert answer["stdout"].endswith("done\n")


def test_more_memory_than_that_ends_the_run_as_out_of_memory(answers: dict[str, Answer]) -> None:
    answer = ask(answers, "memory_beyond_the_limit")
    assert (answer["end"], answer["exit_code"], answer["signal"]) == ("out_of_memory", 137, 9)
    assert (answer["stdout"], answer["stderr"]) == ("", "")
    assert counted(answer["files"]["memory.events"])["oom_kill"] >= 1
    assert answer["max_memory_bytes"] < 128 * MIB


def test_a_program_that_kills_itself_is_not_out_of_memory(answers: dict[str, Answer]) -> None:
    answer = ask(answers, "a_program_that_ends_itself")
    assert (answer["end"], answer["exit_code"], answer["signal"]) == ("signalled", 137, 9)


def test_a_busy_program_gets_its_share_of_a_core_and_no_more(answers: dict[str, Answer]) -> None:
    answer = ask(answers, "a_quarter_of_a_core")
    assert answer["files"]["cpu.max"] == "25000 100000"
    assert counted(answer["files"]["cpu.stat"])["nr_throttled"] > 0
    assert answer["cpu_ms"] < answer["wall_ms"] / 2


def test_a_run_that_takes_too_long_is_killed(answers: dict[str, Answer]) -> None:
    answer = ask(answers, "a_quarter_of_a_core")
    assert (answer["end"], answer["exit_code"]) == ("timed_out", None)
    assert 3000 <= answer["wall_ms"] < 8000


@pytest.mark.parametrize(
    "run",
    [
        "a_run",
        "memory_within_the_limit",
        "memory_beyond_the_limit",
        "a_program_that_ends_itself",
        "a_quarter_of_a_core",
        "fork_bomb",
    ],
)
def test_nothing_is_left(answers: dict[str, Answer], run: str) -> None:
    """No cgroup, no file, no mount, no process of it, not even a dead one that nobody reaps."""
    assert ask(answers, run)["left"] == []


def test_a_fork_bomb_is_killed_at_once(answers: dict[str, Answer]) -> None:
    answer = ask(answers, "fork_bomb")
    assert answer["most"] >= 90
    assert counted(answer["events"])["populated"] == 0
    assert answer["secs"] < 5


def test_two_homes_live_side_by_side(answers: dict[str, Answer]) -> None:
    answer = ask(answers, "two_homes")
    both = ["boxer-first", "boxer-first/mine", "boxer-second", "boxer-second/yours"]
    assert answer["groups"] == both
    assert answer["in_use_stays"], "a home's group was removed while a sandbox was in it"
    assert answer["second_is_gone"]
    assert answer["ours_stays"], "removing one home's group took the other's along"
    assert answer["left"] == []


def test_a_limit_that_cannot_be_set_is_an_error_that_names_it(answers: dict[str, Answer]) -> None:
    refused = ask(answers, "a_limit_that_cannot_be_set")["refused"]
    assert "/boxer-first/odd/cpu.max" in refused
    assert "Invalid argument" in refused


def test_a_host_that_offers_no_memory_controller_is_told_so(answers: dict[str, Answer]) -> None:
    refused = ask(answers, "container_without_memory")["refused"]
    assert "missing on this host: memory (" in refused
    assert "BOXER_IGNORE_CGROUPS" in refused


def test_boxer_limits_runs_in_a_container(answers: dict[str, Answer]) -> None:
    """There, its own processes are in the way: only a host's real root may hold some."""
    answer = ask(answers, "container_with_processes_in_its_root")
    assert answer["own"] == "0::/boxer-host"
    assert answer["pids"], "the process isn't in the cgroup that it entered"
    assert 0 < answer["cpu_ns"] < 1_500_000_000
    assert answer["killed"] == []


def test_cgroups_that_are_read_only_are_an_error_that_says_so(answers: dict[str, Answer]) -> None:
    refused = ask(answers, "read_only_cgroups")["refused"]
    assert "/sys/fs/cgroup" in refused
    assert "Read-only file system" in refused
