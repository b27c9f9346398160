"""What a host runs: the parts of the service, and the steps of their start."""

import signal
import sys
import time
import uuid
from argparse import ArgumentTypeError
from pathlib import Path

from django.conf import settings
from django.core.checks import CheckMessage, Error, run_checks
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, connections
from django.db.migrations.executor import MigrationExecutor

from boxer_site import env
from boxer_site.embedded_postgres import EmbeddedPostgres
from boxer_site.examination import Examination
from boxer_site.listening import is_loopback
from boxer_site.readiness import ReadyProbe
from boxer_site.supervisor import Part, Supervisor
from executions.accounts.services import make_first_admin
from executions.checks import TAG
from executions.host import pool_is_used, pool_is_warm
from executions.models import WorkerHost

POSTGRES_TIMEOUT_SECS = 60.0
DATABASE_TIMEOUT_SECS = 30.0
MIGRATION_TIMEOUT_SECS = 300.0
READY_TIMEOUT_SECS = 60.0
WARM_TIMEOUT_SECS = 20.0
WEB_CONNECTIONS = 12
MIGRATION_LOCK = 0x626F786572
"""Several hosts may start at once; "boxer" in ASCII."""


def refuse_unfit_host() -> list[CheckMessage]:
    """Raises CommandError naming everything that is missing; returns what is only doubtful."""
    found = run_checks(tags=[TAG], include_deployment_checks=True)
    errors = [message for message in found if message.level >= Error("").level]
    if errors:
        raise CommandError("\n".join(described(message) for message in errors))
    return found


def described(message: CheckMessage) -> str:
    return f"{message.msg}\n    {message.hint}" if message.hint else str(message.msg)


def listen_address(given: str | None) -> tuple[str, int]:
    """Where to serve. Raises CommandError for an address that would let strangers in."""
    host, port = env.parse_listen(given, "--listen") if given else settings.BOXER_LISTEN
    lets_anybody_in = settings.BOXER_ANONYMOUS and not settings.BOXER_ANONYMOUS_ANYWHERE
    if lets_anybody_in and not is_loopback(host):
        raise CommandError(
            f"{host} is not a loopback address: whoever reaches it would run programs here as "
            "anonymous, without a password or a token. Set BOXER_ANONYMOUS=0 to ask everybody for "
            "one, or BOXER_ANONYMOUS_ANYWHERE=1 to let strangers in"
        )
    return host, port


def worker_count(value: str) -> int:
    """Type of `--workers`."""
    if not value.isdecimal() or not 1 <= int(value) <= 256:
        raise ArgumentTypeError(f"{value!r} must be a whole number from 1 to 256")
    return int(value)


def manage(*arguments: str) -> list[str]:
    return [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), *arguments]


def _took_migration_lock() -> bool:
    """Held until the connection is closed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [MIGRATION_LOCK])
        return bool(cursor.fetchone()[0])


def _is_migrated() -> bool:
    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())


class Service:
    """The parts of one start, kept by `supervisor`; the last that was started stops first."""

    def __init__(self, supervisor: Supervisor, *, workers: int | None = None) -> None:
        self.supervisor = supervisor
        self.host_id = str(uuid.uuid4())
        self._database_error = ""
        self.env = {"BOXER_WORKER_HOST_ID": self.host_id, "BOXER_HOME": str(settings.BOXER_HOME)}
        if workers is not None:
            self.env["BOXER_WORKERS"] = str(workers)

    # ── Promises ─────────────────────────────────────────────────────────────────────────────────

    def start_examination(self) -> Examination:
        """Raises CommandError for a name in BOXER_GIVE_UP that there isn't."""
        return Examination(self.supervisor, manage("doctor"))

    # ── Database ─────────────────────────────────────────────────────────────────────────────────

    def start_database(self) -> None:
        """Returns when the database answers. Raises StartFailed, PostgresError."""
        if settings.BOXER_EMBEDDED_POSTGRES:
            self._start_postgres()
        try:
            self.supervisor.wait_until(
                self._database_answers,
                DATABASE_TIMEOUT_SECS,
                lambda: f"the database doesn't answer: {self._database_error}",
            )
        finally:
            connections.close_all()

    def _start_postgres(self) -> None:
        server = EmbeddedPostgres(settings.BOXER_HOME)
        server.prepare()
        part = Part(
            "postgres",
            server.command,
            stop_signal=signal.SIGINT,
            kill_signal=signal.SIGQUIT,
            grace_secs=1.5,
            stderr=server.start_log,
        )
        self.supervisor.start(part)
        self.supervisor.wait_until(
            server.is_ready,
            POSTGRES_TIMEOUT_SECS,
            lambda: f"PostgreSQL doesn't start; see {server.start_log} and {server.log}",
        )

    def _database_answers(self) -> bool:
        try:
            connection.ensure_connection()
        except OperationalError as error:
            self._database_error = str(error).strip()
            return False
        return True

    def migrate(self) -> str:
        """Bring the database to this version, one host at a time; the password of a new `admin`."""
        try:
            self.supervisor.wait_until(
                _took_migration_lock,
                MIGRATION_TIMEOUT_SECS,
                lambda: "another host doesn't finish its migrations",
            )
            call_command("migrate", interactive=False, verbosity=0)
            return make_first_admin()
        finally:
            connections.close_all()

    def wait_for_migrations(self) -> None:
        """Until whoever runs `up` on this database has brought it to this version."""
        try:
            self.supervisor.wait_until(
                _is_migrated,
                DATABASE_TIMEOUT_SECS,
                lambda: "the database isn't of this version; `manage.py migrate` brings it there",
            )
        finally:
            connections.close_all()

    # ── Parts ────────────────────────────────────────────────────────────────────────────────────

    def start_web(self, listening: int, address: str) -> None:
        """`address` is HOST:PORT of the socket `listening`."""
        # Its connections are pooled: threads come and go with requests.
        env = self.env | {"BOXER_DB_POOL_SIZE": str(WEB_CONNECTIONS), "BOXER_LISTEN": address}
        part = Part(
            "web",
            lambda: manage("web", "--fd", str(listening)),
            env=env,
            inherited=(listening,),
            grace_secs=1.8,
        )
        self.supervisor.start(part)

    def start_workers(self) -> None:
        keeper = Part("keeper", lambda: manage("keeper"), env=self.env, grace_secs=2.0)
        cluster = Part("cluster", lambda: manage("cluster"), env=self.env, grace_secs=4.0)
        self.supervisor.start(keeper)
        if pool_is_used():
            warm = Part("pool", lambda: manage("pool"), env=self.env, grace_secs=2.0)
            self.supervisor.start(warm)
        self.supervisor.start(cluster)

    def start_demo(self, url: str) -> None:
        part = Part("demo", lambda: manage("demo", url), env=self.env, restart=False)
        self.supervisor.start(part)

    # ── Readiness ────────────────────────────────────────────────────────────────────────────────

    def wait_until_serving(self, url: str) -> None:
        """Until GET /readyz says 200; StartFailed has what it said last."""
        probe = ReadyProbe(f"{url}/readyz")
        self.supervisor.wait_until(
            probe.is_ready,
            READY_TIMEOUT_SECS,
            lambda: f"the service isn't ready after {READY_TIMEOUT_SECS:.0f} s: {probe.answer}",
        )

    def wait_until_warm(self) -> None:
        """Until the pool has a sandbox of each pinned image; not for ever: it may have to pull."""
        if not (pool_is_used() and settings.BOXER_POOL_PINNED):
            return
        deadline = time.monotonic() + WARM_TIMEOUT_SECS
        self.supervisor.wait_until(
            lambda: pool_is_warm() or time.monotonic() > deadline, 2 * WARM_TIMEOUT_SECS, str
        )

    def wait_until_working(self) -> None:
        """Until this host's workers have signed in to the database."""
        try:
            self.supervisor.wait_until(
                self._signed_in,
                READY_TIMEOUT_SECS,
                lambda: f"the workers didn't sign in to the database in {READY_TIMEOUT_SECS:.0f} s",
            )
        finally:
            connections.close_all()

    def _signed_in(self) -> bool:
        return WorkerHost.objects.filter(pk=self.host_id).exists()
