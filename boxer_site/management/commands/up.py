"""`manage.py up`: the whole service on this host, in the foreground."""

import socket
from argparse import ArgumentParser

from django.conf import settings
from django.core.management import BaseCommand, CommandError

from boxer_site.embedded_postgres import PostgresError
from boxer_site.home_lock import AlreadyRunning, home_lock
from boxer_site.listening import CannotListen, listening_socket, url_of
from boxer_site.service import Service, described, listen_address, refuse_unfit_host, worker_count
from boxer_site.supervisor import StartFailed, Stopped, Supervisor
from executions.accounts.services import FIRST_ADMIN


class Command(BaseCommand):
    help = "Run PostgreSQL (unless DATABASE_URL is set), the web server and the workers."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--listen", metavar="HOST:PORT", help="Instead of BOXER_LISTEN.")
        parser.add_argument("--workers", type=worker_count, help="Instead of BOXER_WORKERS.")
        parser.add_argument("--demo", action="store_true", help="Run a hello world when ready.")

    def handle(self, *, listen: str | None, workers: int | None, demo: bool, **_: object) -> None:
        try:
            with home_lock(settings.BOXER_HOME):
                for doubt in refuse_unfit_host():
                    self.stderr.write(described(doubt))
                with listening_socket(*listen_address(listen)) as server, Supervisor() as kept:
                    self.serve(Service(kept, workers=workers), server, demo=demo)
                    kept.run()
        except Stopped:
            pass
        except (AlreadyRunning, CannotListen, PostgresError, StartFailed) as error:
            raise CommandError(str(error)) from None

    def serve(self, service: Service, server: socket.socket, *, demo: bool) -> None:
        url = url_of(server)
        examination = service.start_examination()
        service.start_database()
        if password := service.migrate():
            # Here and nowhere else, once: it isn't logged, and only its hash is kept.
            self.stdout.write(f"Made the user {FIRST_ADMIN} with the password {password}")
            self.stdout.flush()
        service.start_web(server.fileno(), url.removeprefix("http://"))
        examination.judge()
        service.start_workers()
        examination.record()
        service.wait_until_serving(url)
        service.wait_until_warm()
        self.stdout.write(f"Boxer is ready at {url}")
        self.stdout.flush()
        if demo:
            service.start_demo(url)
