"""`manage.py web`: the HTTP server alone, which needs no privilege."""

import gc
import signal
import socket
from argparse import ArgumentParser

import uvicorn
from django.core.management import BaseCommand, CommandError

from boxer_site.listening import BACKLOG, CannotListen, listening_socket, url_of
from boxer_site.service import listen_address

GRACE_SECS = 1
"""How long requests may go on after a stop was asked for. Under `up` workers have stopped before,
so whoever waited for a run has been answered."""


class Command(BaseCommand):
    help = "Serve HTTP. `manage.py up` starts this and everything else."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--listen", metavar="HOST:PORT", help="Instead of BOXER_LISTEN.")
        parser.add_argument("--fd", type=int, help="A listening socket that was inherited.")

    def handle(self, *, listen: str | None, fd: int | None, **_: object) -> None:
        if fd is not None:
            # Its family is read from the socket; uvicorn's --fd takes each for a Unix socket.
            serve(socket.socket(fileno=fd))
            return
        try:
            server = listening_socket(*listen_address(listen))
        except CannotListen as error:
            raise CommandError(str(error)) from None
        self.stderr.write(f"Boxer serves at {url_of(server)}")
        serve(server)


def serve(server: socket.socket) -> None:
    config = uvicorn.Config(
        "boxer_site.asgi:application",
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        # BOXER_TRUSTED_PROXIES says whom to believe (boxer_site/middleware.py), for every address.
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_SECS,
    )
    gc.freeze()  # modules and models stay: no collection need look at them
    # uvicorn raises the signal that stopped it once more, for whoever had wanted it before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[server])
