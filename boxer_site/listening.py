"""The address to serve on: who may reach it, its socket and its URL."""

import ipaddress
import socket

BACKLOG = 2048


class CannotListen(Exception):
    """The address can't be used; the message says why."""


def addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise CannotListen(f"{host}: {error.strerror}") from None
    return [(family, (str(address[0]), port)) for family, _, _, _, address in found]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`, whatever it resolves to."""
    return all(
        ipaddress.ip_address(address.partition("%")[0]).is_loopback
        for _, (address, _) in addresses(host, 0)
    )


def listening_socket(host: str, port: int) -> socket.socket:
    """Bound and listening, so that connections queue before and between starts of the server."""
    family, address = addresses(host, port)[0]
    server = socket.socket(family, socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen(BACKLOG)
    except OSError as error:
        server.close()
        raise CannotListen(f"{host}:{port}: {error.strerror}") from None
    return server


def url_of(server: socket.socket) -> str:
    host, port = server.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
