"""`manage.py up` starts everything, keeps it alive, says what is wrong and leaves nothing."""

import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.environment import new_home
from tests.leftovers import leftovers, processes
from tests.stack import Stack, manage
from tests.stack_access import query, until


@pytest.fixture(scope="module")
def up() -> Iterator[Stack]:
    with Stack("--workers", "2") as running:
        yield running


def test_it_says_where_it_is_ready_once_and_is(up: Stack) -> None:
    ready = re.findall(r"^Boxer is ready at http://127\.0\.0\.1:\d+$", up.log, re.MULTILINE)
    assert ready == [f"Boxer is ready at {up.base_url}"]
    assert up.get("/healthz") == (200, {"ok": True})
    assert up.get("/readyz")[0] == 200


def test_a_second_start_on_the_same_home_is_refused_and_the_first_left_alone(up: Stack) -> None:
    parts = {name: up.part(name).pid for name in ("web", "cluster", "keeper", "postgres")}
    second = manage("up", "--listen", "127.0.0.1:0", home=up.home)
    assert second.returncode == 1
    assert f"Boxer already runs on this home, {up.home} (pid {up.pid})" in second.stderr
    assert "Traceback" not in second.stderr
    assert parts == {name: up.part(name).pid for name in parts}
    assert up.get("/healthz") == (200, {"ok": True})


@pytest.mark.parametrize("name", ["web", "cluster", "keeper", "postgres"])
def test_a_part_that_is_killed_is_started_again(up: Stack, name: str) -> None:
    killed = up.part(name)
    killed.kill()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if up.part(name).pid != killed.pid:
                break
        except (LookupError, psutil.Error):
            pass
        time.sleep(0.05)
    assert up.part(name).pid != killed.pid
    up.wait_until_ready()
    assert f"{name} was ended by SIGKILL; starting it again" in up.log


def test_the_port_stays_while_the_web_process_is_started_again(up: Stack) -> None:
    up.part("web").kill()
    status, _ = up.get("/healthz", timeout=15)
    assert status == 200


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_with_running_sandboxes_in_ten_seconds(
    signum: int, busybox_reference: str
) -> None:
    with Stack("--workers", "2") as stack, ThreadPoolExecutor(1) as client:
        waiting = client.submit(stack.run, image=busybox_reference, cmd=["sleep", "50"])
        wait_for_command(stack)
        assert stack.stop(signum) == 0, stack.log
        assert leftovers([stack.home]) == []
        status, answer = waiting.result()
    # "stopping" where it hadn't begun: then it waits in the queue for the next start.
    assert (status, answer["code"]) in {(503, "stopped"), (503, "stopping")}


def wait_for_command(stack: Stack) -> None:
    """Until a command is executed in a sandbox of the stack."""
    running = "SELECT 1 FROM executions_execution WHERE status = 'running'"
    until(lambda: query(stack, running), "a running command")


def test_a_signal_during_the_start_stops_it_too() -> None:
    stack = Stack().launch()
    deadline = time.monotonic() + 20
    while not (stack.home / "postgres").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stack.stop() == 0, stack.log
    assert leftovers([stack.home]) == []


def test_when_it_is_killed_itself_everything_ends_and_the_next_start_is_clean() -> None:
    stack = Stack("--workers", "2").start()
    stack.kill()
    deadline = time.monotonic() + 15
    while list(processes([stack.home])) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list(processes([stack.home])) == []
    with Stack("--workers", "2", home=stack.home) as again:
        assert again.get("/healthz") == (200, {"ok": True})
    assert leftovers([stack.home]) == []


def test_a_bad_setting_stops_the_start_and_names_itself() -> None:
    done = manage("up", home=new_home(), env={"BOXER_MAX_MEMORY_MB": "plenty"})
    assert done.returncode == 1
    assert "BOXER_MAX_MEMORY_MB='plenty': must be a whole number" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_missing_tool_is_named_at_once_with_what_installs_it() -> None:
    home = new_home()
    done = manage("up", home=home, env={"PATH": str(home)})
    assert done.returncode == 1
    for program, hint in {
        "runsc (gVisor)": "bookworm-backports runsc",
        "skopeo": "apt-get install skopeo",
        "umoci": "apt-get install umoci",
        "busybox": "apt-get install busybox-static",
        "catatonit": "apt-get install catatonit",
    }.items():
        assert f"{program} is missing" in done.stderr
        assert hint in done.stderr
    assert not (home / "postgres").exists()


def test_a_runsc_without_systrap_is_called_too_old(tmp_path: Path) -> None:
    old = tmp_path / "runsc"
    old.write_text("#!/bin/sh\necho runsc version release-20221219.0\n")
    old.chmod(0o755)
    done = manage("up", home=new_home(), env={"BOXER_RUNSC_PATH": str(old)})
    assert done.returncode == 1
    assert f"{old} is too old (release-20221219.0)" in done.stderr


def test_an_address_that_strangers_reach_is_refused_with_the_reason() -> None:
    done = manage("up", "--listen", "0.0.0.0:0", home=new_home())
    assert done.returncode == 1
    assert "0.0.0.0 is not a loopback address" in done.stderr
    assert "without a password" in done.stderr
    assert "BOXER_ANONYMOUS_ANYWHERE" in done.stderr


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = manage("up", "--listen", address, home=new_home())
    assert done.returncode == 1
    assert f"{address}: Address already in use" in done.stderr


@pytest.mark.parametrize("address", ["8080", "localhost", "127.0.0.1:seven", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    done = manage("up", "--listen", address, home=new_home())
    assert done.returncode == 1
    assert "must be HOST:PORT" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("count", ["0", "-1", "many", "257"])
def test_a_number_of_workers_that_is_none_is_named(count: str) -> None:
    done = manage("up", f"--workers={count}", home=new_home())
    assert done.returncode != 0
    assert "must be a whole number from 1 to 256" in done.stderr


def test_a_worker_host_wants_to_be_told_its_database() -> None:
    done = manage("worker", home=new_home())
    assert done.returncode == 1
    assert "DATABASE_URL: must name the database" in done.stderr


def test_a_worker_host_runs_beside_a_service_and_stops_alone(up: Stack) -> None:
    url = f"postgresql://postgres@/boxer?host={up.home}/postgres/socket"
    ready = re.compile(r"^Boxer worker is ready$", re.MULTILINE)
    worker = Stack("--workers", "1", env={"DATABASE_URL": url}, command="worker", ready=ready)
    worker.start()
    assert not (worker.home / "postgres").exists()
    assert worker.stop() == 0, worker.log
    assert leftovers([worker.home]) == []
    assert up.get("/readyz")[0] == 200


def test_no_directory_of_the_home_is_open_to_other_users(up: Stack) -> None:
    assert up.home.stat().st_mode & 0o077 == 0
    assert (up.home / "secret_key").stat().st_mode & 0o077 == 0
    assert (up.home / "lock").stat().st_mode & 0o077 == 0
