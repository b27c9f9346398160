"""A network namespace that a mounted file keeps, made without a process."""

import ctypes
import fcntl
import os
import socket
import struct
import threading
from pathlib import Path

from executions.sandbox import kernel

# From <sched.h>, <sys/mount.h>, <linux/sockios.h> and <net/if.h>.
CLONE_NEWNET = 0x40000000
MS_BIND = 4096
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)


def make(path: Path) -> None:
    """Keep a new namespace at `path`: its loopback is up, IPv6 is off. Raises OSError."""
    path.touch(mode=0o600)
    failed: list[OSError] = []

    def work() -> None:
        # The namespace is this thread's alone, and the thread ends.
        try:
            _unshare()
            for scope in ("all", "default"):
                setting = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
                if setting.exists():
                    setting.write_text("1")
            _set_loopback_up()
            kernel.mount("/proc/thread-self/ns/net", path, "none", MS_BIND, "")
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="makes a network namespace")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _unshare() -> None:
    if _libc.unshare(CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"making a network namespace: {os.strerror(number)}")


def _set_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


def is_kept(path: Path) -> bool:
    """Whether a namespace is mounted there."""
    return path.resolve() in {mount.point for mount in kernel.mounts() if mount.kind == "nsfs"}


def remove(path: Path) -> None:
    """Let go of it; what is in it goes with its last process. May be repeated. Raises OSError."""
    while is_kept(path):
        kernel.unmount(path, lazy=True)
    path.unlink(missing_ok=True)
