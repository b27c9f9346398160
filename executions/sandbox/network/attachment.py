"""A sandbox's network from its making to its end, known by what lies in the sandbox's directory."""

import contextlib
import fcntl
import ipaddress
import json
import logging
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from executions.sandbox.network import namespace
from executions.sandbox.network.cni import Plugins
from executions.sandbox.network.errors import NetworkError
from executions.sandbox.network.rules import Member, Rules
from executions.sandbox.spec import Traffic

logger = logging.getLogger(__name__)

RECORD = "network.json"
LOCK = "network.lock"
NAMESPACE = "netns"
ORPHAN_SECS = 25.0
"""How long what a killed worker has started may still run; see cni.PLUGIN_SECS."""


@dataclass(frozen=True, slots=True)
class Network:
    """What every sandbox with a network of its own shares: plugins, rules, addresses of a home."""

    directory: Path
    """Addresses that are given out, and the lock of the rules."""
    workers: Path
    """Below it lie the sandboxes of every worker of the home."""
    subnet: str
    """Empty where an operator's own configuration gives addresses."""
    plugins: Plugins
    rules: Rules

    def lack(self) -> str:
        """Why no sandbox can be given a network on this host; empty when nothing is missing."""
        if self.plugins.lack:
            return self.plugins.lack
        try:
            for name in sorted(self.plugins.names()):
                self.plugins.find(name)
            self.check_subnet()
        except NetworkError as error:
            return str(error)
        return self.rules.refuse_reason()

    def check_subnet(self) -> None:
        """Raises NetworkError where the host has a route into our subnet that isn't ours."""
        if not self.subnet:
            return
        ours = ipaddress.IPv4Network(self.subnet)
        for device, route in _routes():
            if device not in self.plugins.bridges() and route.prefixlen and route.overlaps(ours):
                raise NetworkError(
                    f"BOXER_NETWORK_SUBNET={self.subnet} overlaps {route}, which this host reaches"
                    f" by {device}: name another subnet"
                )

    def answer_for_neighbours(self) -> None:
        """Let the host answer when a sandbox asks where another is, which the bridge doesn't pass.

        So that the connection comes to the rules, which refuse it at once and count it.
        """
        if not self.subnet:
            return
        for device in self.plugins.bridges():
            settings = Path("/proc/sys/net/ipv4/conf") / device
            for name, value in (("proxy_arp_pvlan", "1"), ("send_redirects", "0")):
                (settings / name).write_text(value)

    def restore(self) -> None:
        """Put back what is missing of the rules, those of running sandboxes included."""
        with self.locked():
            self.rules.apply(self._members())

    def _members(self) -> Iterator[Member]:
        for record in sorted(self.workers.glob(f"*/*/{RECORD}")):
            member = _read_member(record)
            if member is not None:
                yield member

    def is_complete(self) -> bool:
        """Whether the rules know the address of every running sandbox. Raises NetworkError."""
        with self.locked():
            return {member.address for member in self._members()} <= self.rules.addresses()

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Whoever changes the rules by what the records say does so alone."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(self.directory / "lock") as descriptor:
            yield descriptor

    def is_used(self) -> bool:
        """Whether this home has ever made a sandbox with a network."""
        return self.directory.exists()


class Attachment:
    """The network of one sandbox, whose directory is `base`."""

    def __init__(self, network: Network, sandbox_id: str, base: Path) -> None:
        self._network = network
        self._id = sandbox_id
        self._base = base

    @property
    def namespace(self) -> Path:
        return self._base / NAMESPACE

    @property
    def _record(self) -> Path:
        return self._base / RECORD

    def attach(self) -> None:
        """Namespace, address, rules; what is to be removed is written down before it is made.

        Raises NetworkError, OSError; then the rest is detach()'s.
        """
        self._network.check_subnet()
        with _locked(self._base / LOCK) as held:
            self._write(None)
            namespace.make(self.namespace)
            # A name of the sandbox alone, so that a retried run never frees another's address.
            given = self._network.plugins.add(self._id, self.namespace, held)
            self._network.answer_for_neighbours()
            member = Member(given.address, given.mac, given.ports)
            with self._network.locked():
                self._write(member)
                self._network.rules.apply([member], held)

    def figures(self) -> Traffic | None:
        """None where there are none: it has no network, or its rules were flushed just now."""
        member = _read_member(self._record)
        if member is None:
            return None
        try:
            return self._network.rules.figures(member.address)
        except NetworkError as error:
            logger.warning("sandbox %s: %s", self._id, error)
            return None

    def detach(self) -> None:
        """Remove all of it, after the last process in it has ended. May be repeated.

        A plugin or nft that fails keeps nothing else. Raises OSError.
        """
        if not self._record.exists():
            return
        with contextlib.suppress(FileNotFoundError), _locked(self._base / LOCK) as held:
            self._forget_rules(held)
            kept = namespace.is_kept(self.namespace)
            try:
                self._network.plugins.delete(self._id, self.namespace if kept else None, held)
            except NetworkError as error:
                logger.warning("sandbox %s: %s; removed without it", self._id, error)
            self._free_addresses()
            namespace.remove(self.namespace)
            self._record.unlink(missing_ok=True)

    def _forget_rules(self, held: int) -> None:
        member = _read_member(self._record)
        if member is None:
            return
        # Before its address is free to be another's.
        with self._network.locked():
            self._write(None)
            try:
                self._network.rules.forget(member, held)
            except NetworkError as error:
                logger.warning("sandbox %s: %s", self._id, error)

    def _free_addresses(self) -> None:
        """What host-local keeps (DIR/NAME/ADDRESS, its first line the container), if it didn't."""
        for file in (self._network.directory / "addresses").glob("*/[0-9]*.*"):
            with contextlib.suppress(OSError):
                if file.read_text().splitlines()[:1] == [self._id]:
                    file.unlink()

    def _write(self, member: Member | None) -> None:
        new = self._base / f"{RECORD}.new"
        new.write_text(json.dumps(asdict(member) if member else None))
        new.replace(self._record)


def _read_member(record: Path) -> Member | None:
    """None for a sandbox whose address isn't known (any more)."""
    try:
        told = json.loads(record.read_text())
    except FileNotFoundError:
        return None
    if told is None:
        return None
    return Member(str(told["address"]), str(told["mac"]), tuple(map(str, told["ports"])))


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[int]:
    """A lock that whoever inherits the descriptor holds, too. Raises OSError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + ORPHAN_SECS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.002)
        yield descriptor
    finally:
        os.close(descriptor)


def _routes() -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    """Device and destination of each IPv4 route, those of this thread's namespace."""
    for line in Path("/proc/thread-self/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        address, mask = (socket.inet_ntoa(struct.pack("=L", int(fields[at], 16))) for at in (1, 7))
        yield fields[0], ipaddress.IPv4Network(f"{address}/{mask}", strict=False)
