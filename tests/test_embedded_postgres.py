"""The default database starts for root, heals after a kill and opens nothing to other users."""

import os
import pwd
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from boxer_site.embedded_postgres import EmbeddedPostgres, PostgresError, stop
from tests.environment import new_home


@pytest.fixture
def home() -> Path:
    return new_home()


@pytest.fixture
def start(home: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def run() -> subprocess.Popen[bytes]:
        cluster = EmbeddedPostgres(home)
        started.append(subprocess.Popen(cluster.command(), stderr=subprocess.DEVNULL))
        return started[-1]

    yield run
    for server in started:
        if server.poll() is None:
            stop(server)


def test_a_database_that_speaks_utf8_is_there_after_the_first_start(home: Path) -> None:
    cluster = EmbeddedPostgres(home, throwaway=True)
    with cluster.running(), psycopg.connect(cluster.url()) as connection:
        row = connection.execute(
            "SELECT current_database(), current_setting('server_encoding'), lower('ÄÉ')"
        ).fetchone()
    assert row == ("boxer", "UTF8", "äé")


def test_data_survive_a_restart(home: Path) -> None:
    cluster = EmbeddedPostgres(home, throwaway=True)
    with cluster.running(), psycopg.connect(cluster.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    with cluster.running(), psycopg.connect(cluster.url()) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_it_listens_on_no_network_address(home: Path) -> None:
    cluster = EmbeddedPostgres(home, throwaway=True)
    with cluster.running(), psycopg.connect(cluster.url()) as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        server = psutil.Process(row[0]).parent()
        assert server is not None
        listening = server.net_connections(kind="all")
    assert [str(item.laddr) for item in listening] == ["/mnt/cluster/socket/.s.PGSQL.5432"]


@pytest.mark.skipif(os.geteuid() != 0, reason="root has another user run PostgreSQL")
def test_root_has_a_user_without_privilege_run_it_and_opens_no_directory_to_anybody(
    home: Path,
) -> None:
    parent = home / "closed"
    parent.mkdir(mode=0o700)
    before = {path: path.stat().st_mode for path in (home, parent, Path(sys.prefix), Path("/root"))}
    with EmbeddedPostgres(parent / "home", throwaway=True).running() as server:
        with psycopg.connect(server.url()) as connection:
            row = connection.execute("SELECT pg_backend_pid()").fetchone()
            assert row is not None
            backend = psutil.Process(row[0])
            assert set(backend.uids()) == {pwd.getpwnam(server.user).pw_uid}
        for directory in (server.root, server.data, server.socket):
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((parent / "home").stat().st_mode) == 0o700
    assert before == {path: path.stat().st_mode for path in before}


def test_its_mounts_are_seen_by_nobody_else(home: Path) -> None:
    with EmbeddedPostgres(home, throwaway=True).running() as server:
        with psycopg.connect(server.url()) as connection:
            row = connection.execute("SELECT pg_backend_pid()").fetchone()
            assert row is not None
            assert "/mnt/cluster" in Path(f"/proc/{row[0]}/mounts").read_text()
        ours = Path("/proc/self/mounts").read_text()
    assert str(home) not in ours
    assert "/mnt/cluster" not in ours


def test_after_kill_9_it_starts_again_with_everything_that_was_committed(
    home: Path, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    cluster = EmbeddedPostgres(home)
    cluster.prepare()
    first = start()
    cluster.wait_until_ready()
    with psycopg.connect(cluster.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    first.kill()
    first.wait()
    start()
    cluster.wait_until_ready()
    with psycopg.connect(cluster.url()) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_second_server_on_the_same_data_waits_for_the_first_and_its_backends(
    home: Path, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    cluster = EmbeddedPostgres(home, throwaway=True)
    cluster.prepare()
    first = start()
    cluster.wait_until_ready()
    second = start()
    time.sleep(0.5)
    assert second.poll() is None
    with psycopg.connect(cluster.url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    stop(first)
    cluster.wait_until_ready()
    assert second.poll() is None


def test_an_initdb_that_was_interrupted_is_begun_anew(home: Path) -> None:
    cluster = EmbeddedPostgres(home, throwaway=True)
    half = home / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with cluster.running(), psycopg.connect(cluster.url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not half.exists()


def test_it_stops_when_whoever_started_it_is_killed(home: Path) -> None:
    program = (
        "import subprocess, sys, time; from pathlib import Path\n"
        "from boxer_site.embedded_postgres import EmbeddedPostgres\n"
        "cluster = EmbeddedPostgres(Path(sys.argv[1]), throwaway=True)\n"
        "cluster.prepare()\n"
        "server = subprocess.Popen(cluster.command())\n"
        "cluster.wait_until_ready()\n"
        "print('ready', server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(home)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        word, pid = parent.stdout.readline().split()
        assert word == "ready"
        server = psutil.Process(int(pid))
        parent.send_signal(signal.SIGKILL)
    server.wait(10) if server.is_running() else None
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def test_data_of_another_version_are_named_and_left_alone(home: Path) -> None:
    data = home / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(PostgresError, match=r"PostgreSQL 15, this is 18.*DATABASE_URL"):
        EmbeddedPostgres(home, throwaway=True).prepare()
    assert (data / "PG_VERSION").read_text() == "15\n"
