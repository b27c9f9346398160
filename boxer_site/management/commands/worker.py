"""`manage.py worker`: the workers alone, for a host beside the one that serves."""

from argparse import ArgumentParser

from django.conf import settings
from django.core.management import BaseCommand, CommandError

from boxer_site.home_lock import AlreadyRunning, home_lock
from boxer_site.service import Service, described, refuse_unfit_host, worker_count
from boxer_site.supervisor import StartFailed, Stopped, Supervisor


class Command(BaseCommand):
    help = "Run workers for a service whose database and storage are elsewhere (DATABASE_URL)."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--workers", type=worker_count, help="Instead of BOXER_WORKERS.")

    def handle(self, *, workers: int | None, **_: object) -> None:
        if settings.BOXER_EMBEDDED_POSTGRES:
            raise CommandError("DATABASE_URL: must name the database of the service to work for")
        try:
            with home_lock(settings.BOXER_HOME):
                for doubt in refuse_unfit_host():
                    self.stderr.write(described(doubt))
                with Supervisor() as kept:
                    self.work(Service(kept, workers=workers))
                    kept.run()
        except Stopped:
            pass
        except (AlreadyRunning, StartFailed) as error:
            raise CommandError(str(error)) from None

    def work(self, service: Service) -> None:
        examination = service.start_examination()
        service.start_database()
        service.wait_for_migrations()
        examination.judge()
        service.start_workers()
        examination.record()
        service.wait_until_working()
        self.stdout.write("Boxer worker is ready")
        self.stdout.flush()
