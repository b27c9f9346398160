"""Linux calls that Python's library lacks: mount, umount, prctl."""

import ctypes
import os
import signal
from dataclasses import dataclass
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

# From <sys/mount.h> and <sys/prctl.h>.
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: Path, kind: str, flags: int, options: str) -> None:
    """mount(2). Raises OSError."""
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            kind.encode(),
            ctypes.c_ulong(flags),
            os.fsencode(options),
        ),
        f"mounting {kind} on {target}",
    )


def unmount(target: Path, *, lazy: bool = False) -> None:
    """umount2(2), never through a symbolic link. Raises OSError."""
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)
    _check(_libc.umount2(os.fsencode(target), flags), f"unmounting {target}")


@dataclass(frozen=True, slots=True)
class Mount:
    point: Path
    kind: str
    options: tuple[str, ...]
    """Those of the file system, not of this mount of it."""


def mounts(mountinfo: Path = Path("/proc/self/mountinfo")) -> list[Mount]:
    """Every mount, in the order they were made (see proc_pid_mountinfo(5))."""
    found = []
    for line in os.fsdecode(mountinfo.read_bytes()).split("\n"):
        fields, separator, tail = line.partition(" - ")
        if separator:
            point = Path(_unescape(fields.split(" ")[4]))
            kind, _, options = tail.split(" ", 2)
            found.append(Mount(point, kind, tuple(options.split(","))))
    return found


def mounts_below(directory: Path) -> list[Path]:
    """Mount points beneath a directory, innermost first. It may be named through a link."""
    real = directory.resolve()
    return [mount.point for mount in reversed(mounts()) if real in mount.point.parents]


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def become_subreaper() -> None:
    """Orphans among our descendants become our children, so that we can reap them ourselves."""
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "becoming a child subreaper")


def name_process(name: str) -> None:
    """What ps(1) and top(1) call this process, from its main thread; the kernel keeps 15 bytes."""
    _check(_libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0), "naming the process")


def die_with_parent(parent_pid: int, signal_number: int = signal.SIGKILL) -> None:
    """Get a signal when the parent dies; at once if it has died already."""
    _check(
        _libc.prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0), "setting the parent's signal"
    )
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal_number)
