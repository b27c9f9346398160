"""An internet of network namespaces: a host of ours, what is outside of it, and a way between."""

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from executions.sandbox.network import namespace

T = TypeVar("T")

HOST = "203.0.113.1"
ALSO_HOST = "198.51.100.7"
GATEWAY = "203.0.113.10"
OUTSIDE = "93.184.216.34"
METADATA = "169.254.169.254"
NEIGHBOUR = "10.99.0.5"
OPENED = "172.20.1.5"
"""In a closed range that the operator has opened."""
CARRIER = "100.64.0.5"
LAN = "192.168.7.7"
RESOLVER = "192.168.53.53"
NAME, NAMED = "outside.example", "93.184.216.34"

_libc = ctypes.CDLL(None, use_errno=True)


def inside(path: Path, work: Callable[[], T]) -> T:
    """Do something in a thread whose network is the namespace at `path`."""
    result: list[T] = []
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            enter_namespace(path)
            result.append(work())
        except BaseException as error:  # noqa: BLE001 (raised where it belongs)
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return result[0]


def enter_namespace(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _libc.setns(descriptor, namespace.CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"entering {path}")
    finally:
        os.close(descriptor)


@dataclass
class World:
    host: Path
    outside: Path
    seen: list[tuple[str, str]] = field(default_factory=list)
    """(who asked, at which address) of each connection that reached a server of the world."""
    asked: list[str] = field(default_factory=list)
    """Names that the resolver was asked for."""

    def on_host(self, work: Callable[[], T]) -> T:
        return inside(self.host, work)

    def ip(self, where: Path, *words: str) -> str:
        return inside(where, lambda: tool("ip", *words))

    def nft(self, *words: str) -> str:
        return self.on_host(lambda: tool("nft", *words))


def tool(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@contextmanager
def a_world(directory: Path) -> Iterator[World]:
    """Everything lies in namespaces of its own: nothing of the machine's network is touched."""
    world = World(directory / "host-netns", directory / "outside-netns")
    listening: list[socket.socket] = []
    try:
        for path in (world.host, world.outside):
            namespace.make(path)
            inside(path, _allow_ipv6)
        _lay_cables(world)
        for path, port in ((world.outside, 80), (world.host, 80), (world.host, 8099)):
            listening.append(_serve(world, path, port))
        listening.append(_resolve(world))
        yield world
    finally:
        for sock in listening:
            sock.close()
        for path in (world.host, world.outside):
            if path.exists():
                namespace.remove(path)


def _allow_ipv6() -> None:
    for scope in ("all", "default", "lo"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("0")


def _lay_cables(world: World) -> None:
    world.ip(world.host, "link", "add", "up0", "type", "veth", "peer", "name", "down0")
    world.ip(world.host, "link", "set", "down0", "netns", str(world.outside))
    for where, device, addresses in (
        (world.host, "up0", [f"{HOST}/24", "2001:db8::1/64"]),
        (world.host, "lo", [f"{ALSO_HOST}/32"]),
        (world.outside, "down0", [f"{GATEWAY}/24", "2001:db8::10/64"]),
        (
            world.outside,
            "lo",
            [
                f"{address}/32"
                for address in (OUTSIDE, METADATA, NEIGHBOUR, OPENED, CARRIER, LAN, RESOLVER)
            ],
        ),
    ):
        for address in addresses:
            nodad = ["nodad"] if ":" in address else []
            world.ip(where, "address", "add", address, "dev", device, *nodad)
        world.ip(where, "link", "set", device, "up")
    world.ip(world.host, "route", "add", "default", "via", GATEWAY)
    world.ip(world.host, "-6", "route", "add", "default", "via", "2001:db8::10")


def _serve(world: World, where: Path, port: int) -> socket.socket:
    """Answers every TCP connection with who asked, and sends back what it is told."""
    server = inside(where, lambda: socket.create_server(("", port), family=socket.AF_INET))

    def talk(connection: socket.socket, peer: str) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            world.seen.append((peer, connection.getsockname()[0]))
            connection.sendall(f"you are {peer}\n".encode())
            while got := connection.recv(65536):
                connection.sendall(got)

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, (peer, _) = server.accept()
                threading.Thread(target=talk, args=(connection, peer), daemon=True).start()

    threading.Thread(target=answer, daemon=True).start()
    return server


def _resolve(world: World) -> socket.socket:
    """A name server that knows one name; see RFC 1035."""
    server = inside(world.outside, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind((RESOLVER, 53))

    def answer() -> None:
        while True:
            try:
                query, peer = server.recvfrom(4096)
            except OSError:
                return
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode())
                at += query[at] + 1
            question = query[12 : at + 5]
            (kind,) = struct.unpack(">H", query[at + 1 : at + 3])
            world.asked.append(".".join(labels))
            known = ".".join(labels) == NAME
            record = b""
            if known and kind == 1:
                record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04"
                record += socket.inet_aton(NAMED)
            flags = b"\x81\x80" if known else b"\x81\x83"
            counts = struct.pack(">HHHH", 1, 1 if record else 0, 0, 0)
            server.sendto(query[:2] + flags + counts + question + record, peer)

    threading.Thread(target=answer, daemon=True).start()
    return server
