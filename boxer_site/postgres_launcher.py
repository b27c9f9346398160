"""Starts a program of PostgreSQL as a user of its own, though only root reaches its files.

PostgreSQL refuses to run as root, and neither the home (often below /root) nor the virtualenv has
to be open to anybody else. So both are mounted once more, in a mount namespace of this process
alone, where every user reaches them. The process then becomes the program: no parent stays behind.

A script of the standard library only: `python -IS postgres_launcher.py` starts in 20 ms.
"""

import ctypes
import fcntl
import os
import pwd
import signal
import sys
import time
from pathlib import Path

CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_REMOUNT = 0x1, 0x20
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
LOCK_WAIT_SECS = 15.0
# Any directory that surely exists; only this process sees what is mounted over it.
STAGES = ("/mnt", "/srv", "/tmp")  # noqa: S108 (nothing is written there)

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    arguments = [os.fsencode(part) for part in (source, target, kind)]
    result = libc.mount(*arguments, ctypes.c_ulong(flags), os.fsencode(options))
    checked(result, f"mounting {target}")


def private_mounts(home: str) -> None:
    """Leave the machine's mount namespace, and hold on to none of the sandboxes' mounts.

    A copy of a sandbox's mount would keep its file system or network namespace alive after the
    original is gone.
    """
    checked(libc.unshare(CLONE_NEWNS), "leaving the mount namespace")
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        fields = line.split(" ")
        point = fields[4].encode().decode("unicode_escape").encode("latin-1")
        kind = fields[fields.index("-") + 1]
        if kind == "nsfs" or os.fsdecode(point).startswith(f"{home}/"):
            libc.umount2(point, MNT_DETACH)


def stage(cluster: str, packages: str) -> str:
    """Mount both directories below one that every user reaches; returns that one."""
    sources = {
        "cluster": os.open(cluster, os.O_PATH | os.O_DIRECTORY),
        "packages": os.open(packages, os.O_PATH | os.O_DIRECTORY),
    }
    root = next(path for path in STAGES if Path(path).is_dir())
    mount("boxer", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=64k")
    for name, descriptor in sources.items():
        target = f"{root}/{name}"
        Path(target).mkdir(mode=0o755)
        mount(f"/proc/self/fd/{descriptor}", target, "", MS_BIND)
        os.close(descriptor)
    mount("", f"{root}/packages", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID)
    # Shared memory that a crash leaves behind vanishes with the namespace.
    mount("boxer", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")  # noqa: S108
    return root


def hold(lock: Path) -> None:
    """Take the cluster's lock and let every process of PostgreSQL inherit it.

    So it is free when the last backend of a killed server is gone, and not before.
    """
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_WAIT_SECS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise SystemExit(f"PostgreSQL of {lock.parent} is still running") from None
            time.sleep(0.05)
    os.set_inheritable(descriptor, True)


def become(user: str) -> None:
    account = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def die_with(parent: int) -> None:
    """Ask for a fast shutdown when the parent dies; changing the user would undo this."""
    checked(libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0), "prctl")
    if os.getppid() != parent:
        raise SystemExit("whoever started PostgreSQL is gone already")


def main(parent: str, user: str, cluster: str, packages: str, *argv: str) -> None:
    """`argv` may say {cluster} and {packages} for wherever those are then found."""
    hold(Path(cluster) / "lock")
    places = {"cluster": cluster, "packages": packages}
    if user:
        private_mounts(str(Path(cluster).parent))
        root = stage(cluster, packages)
        places = {name: f"{root}/{name}" for name in places}
        become(user)
    os.chdir(places["cluster"])
    os.umask(0o077)
    die_with(int(parent))
    command = [part.format(**places) for part in argv]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
    os.execve(command[0], command, environment)  # noqa: S606 (no shell is what is wanted)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (OSError, KeyError) as problem:
        sys.exit(f"PostgreSQL can't be started: {problem}")
