"""Keeps a home's rules in place while it runs, and takes network and rules away in the end."""

import contextlib
import logging
import os
import select
import shutil
import socket
import subprocess
import threading

from executions.sandbox import processes, trees
from executions.sandbox.network.attachment import Network
from executions.sandbox.network.errors import NetworkError

logger = logging.getLogger(__name__)

# From <linux/netlink.h> and <linux/netfilter/nfnetlink.h>.
NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
LOOK_SECS = 5.0
"""How often the rules are looked at even if nobody has said that they changed."""
SETTLE_SECS = 0.02
DRAINED = 200
"""Messages after which it looks in any case, for whoever never stops changing something."""
IP_SECS = 10.0


class Watch:
    """A thread that puts the rules back as soon as somebody has changed them, until stop()."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._stop_read, self._stop_write = os.pipe()
        self._listing = ""
        self._thread = threading.Thread(target=self._run, name="watches the network's rules")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        os.write(self._stop_write, b"!")
        self._thread.join()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def _run(self) -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as changes:
            changes.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
            waited_for: list[socket.socket | int] = [changes, self._stop_read]
            while True:
                self._look()
                ready, _, _ = select.select(waited_for, [], [], LOOK_SECS)
                if self._stop_read in ready:
                    return
                if changes in ready:
                    _drain(changes)

    def _look(self) -> None:
        try:
            if self._network.is_used():
                self._put_back()
        except (NetworkError, OSError):
            logger.exception("the network's rules can't be put back; it is tried again")

    def _put_back(self) -> None:
        """What stands is compared with what stood when it was last put in place."""
        network = self._network
        if self._listing and network.rules.listing() == self._listing and network.is_complete():
            return
        network.restore()
        listing = network.rules.listing()
        if self._listing:
            logger.warning("somebody had changed the rules of the network; they are back")
        self._listing = listing


def _drain(changes: socket.socket) -> None:
    """One look for all that was changed together; how it was changed doesn't matter."""
    for _ in range(DRAINED):
        if not select.select([changes], [], [], SETTLE_SECS)[0]:
            return
        with contextlib.suppress(OSError):  # more changes than the socket could keep
            changes.recv(1 << 16)


def remove(network: Network) -> None:
    """After the last sandbox has gone: tables, bridge, addresses. Raises NetworkError, OSError."""
    if not network.is_used():
        return
    network.rules.remove()
    if network.subnet:
        for device in network.plugins.bridges():
            _delete_device(device)
    trees.remove_tree(network.directory)


def _delete_device(name: str) -> None:
    if name not in {device for _, device in socket.if_nameindex()}:
        return
    done = subprocess.run(
        [shutil.which("ip") or "/sbin/ip", "link", "delete", name],
        capture_output=True,
        env=processes.environment(),
        timeout=IP_SECS,
    )
    if done.returncode != 0:
        raise NetworkError(f"ip link delete {name}: {done.stderr.decode(errors='replace')[:200]}")
