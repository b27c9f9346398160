"""A worker host beside the web: they share PostgreSQL and S3, and no local path."""

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from boxer_site.embedded_postgres import EmbeddedPostgres
from tests.environment import new_home
from tests.fixtures_storage import StorageUnderTest
from tests.leftovers import leftovers
from tests.registry import Registry
from tests.stack import Stack, manage
from tests.stack_access import download, until, upload

SERVES = re.compile(r"^Boxer serves at (http://\S+)$", re.MULTILINE)
WORKS = re.compile(r"^Boxer worker is ready$", re.MULTILINE)


@pytest.fixture
def database() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(new_home(), throwaway=True).running() as server:
        yield server


@pytest.fixture
def shared(database: EmbeddedPostgres, s3: StorageUnderTest, registry: Registry) -> dict[str, str]:
    """All that the two are told about each other, and a database that is ready for them."""
    environment = {
        "DATABASE_URL": f"postgresql://postgres@/boxer?host={database.socket}",
        "BOXER_SECRET_KEY": "the same on both",
        **s3.environment(),
    }
    migrated = manage("migrate", "--verbosity=0", home=new_home(), env=environment)
    assert migrated.returncode == 0, migrated.stderr
    return environment


@pytest.fixture
def web(shared: dict[str, str], tmp_path: Path) -> Iterator[Stack]:
    """The HTTP server alone, on a host that hasn't got anything to run containers with."""
    env = {**shared, "PATH": str(tmp_path)}
    with Stack("--listen", "127.0.0.1:0", env=env, command="web", ready=SERVES) as stack:
        yield stack


def worker(shared: dict[str, str]) -> Stack:
    return Stack("--workers", "2", env=shared, command="worker", ready=WORKS)


def files_of(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}


def test_inputs_outputs_and_what_was_printed_travel_between_web_and_worker(
    web: Stack, shared: dict[str, str], s3: StorageUnderTest, busybox_reference: str
) -> None:
    request: dict[str, Any] = {
        "image": busybox_reference,
        "cmd": ["sh", "-c", "cat /in/data | tee /output/copy; echo trouble >&2"],
        "files": ["in/data"],
        "persist": True,
    }
    upload(web, "in/data", b"by way of S3")
    status, answer = web.run(**request)
    assert (status, answer["code"]) == (503, "no_worker")
    assert web.get("/readyz")[0] == 503
    with worker(shared) as host:
        assert host.home != web.home
        assert web.get("/readyz")[0] == 200
        status, answer = web.run(**request)
        assert (status, answer["stdout"], answer["stderr"]) == (200, "by way of S3", "trouble\n")
        path = f"output/{answer['exec_id']}/copy"
        assert download(web, path) == (200, b"by way of S3")
        status, answer = web.run(**{**request, "persist": False})
        assert (status, answer["stdout"]) == (200, "by way of S3")
        assert download(web, "in/data")[0] == 404
        assert not (host.home / "contents").exists()
    assert files_of(web.home) <= {"test.log"}
    # Stopped in good order, it is missed at once.
    status, answer = web.run(**request)
    assert status in {400, 503}
    assert web.get("/readyz")[0] == 503
    assert download(web, path) == (200, b"by way of S3")
    assert len(s3.objects()) == 1
    assert leftovers([host.home]) == []


def test_two_worker_hosts_share_the_work_and_one_may_go(
    web: Stack, shared: dict[str, str], busybox_reference: str
) -> None:
    with worker(shared) as first, worker(shared) as second, ThreadPoolExecutor(8) as clients:
        request: dict[str, Any] = {"image": busybox_reference, "cmd": ["sleep", "1"]}
        runs = [clients.submit(web.run, **request) for _ in range(8)]
        until(lambda: busy_hosts(shared) == 2, "both have something to do")
        assert [run.result()[0] for run in runs] == [200] * 8
        assert first.stop() == 0, first.log
        status, answer = web.run(image=busybox_reference, cmd=["echo", "still"])
        assert (status, answer["stdout"]) == (200, "still\n")
        assert second.running


def busy_hosts(shared: dict[str, str]) -> int:
    sql = "SELECT count(DISTINCT host_id) FROM executions_execution WHERE status <> 'queued'"
    with psycopg.connect(shared["DATABASE_URL"]) as connection:
        row = connection.execute(sql).fetchone()
    return int(row[0]) if row else 0


def test_a_worker_host_stops_in_time_though_its_database_is_gone(
    shared: dict[str, str], database: EmbeddedPostgres
) -> None:
    host = worker(shared).start()
    pid = int((database.data / "postmaster.pid").read_text().split()[0])
    # It ends at once, and its clients see their connections break.
    os.kill(pid, signal.SIGQUIT)
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, "PostgreSQL ends")
    assert host.stop() == 0, host.log[-5000:]
    assert "Traceback" not in host.log
    assert "is still there after" not in host.log
    assert leftovers([host.home]) == []
