"""`runsc run` as one would do it by hand: the same files, command and limits, nothing around."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOBODY = 65534
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PERIOD_US = 100_000
CGROUPS = Path("/sys/fs/cgroup")
TIMEOUT_SECS = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Boxer's defaults, so that both sides run under the same."""

    cpu_cores: float = 1.0
    memory_mb: int = 256
    pids: int = 64
    nofile: int = 256


class RunscFailed(Exception):
    """`runsc run` didn't run the command; the message has the end of what it said."""


@dataclass(frozen=True, slots=True)
class Bare:
    """Runs one command again and again; each slot runs one at a time."""

    binary: str
    platform: str
    directory: Path
    group: str
    """Of our cgroups, below which each slot has its own."""

    def run(self, slot: int, expected: bytes) -> float:
        """Seconds from the start of runsc to its end. Raises RunscFailed."""
        command = [
            self.binary,
            f"--root={self.directory / 'state'}",
            f"--platform={self.platform}",
            "--network=none",
            "--overlay2=none",
            "run",
            f"--bundle={self.bundle(slot)}",
            f"{self.group}-{slot}",
        ]
        started = time.perf_counter()
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_SECS
        )
        took = time.perf_counter() - started
        if done.returncode or done.stdout != expected:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise RunscFailed(f"runsc run ended with {done.returncode}: {said[-500:]}")
        return took

    def bundle(self, slot: int) -> Path:
        return self.directory / f"bundle-{slot}"

    def prepare(self, slot: int, rootfs: Path, command: Sequence[str], limits: Limits) -> None:
        self.bundle(slot).mkdir()
        config = oci_config(rootfs, command, limits, f"/{self.group}/{slot}")
        (self.bundle(slot) / "config.json").write_text(json.dumps(config))


@contextmanager
def bare_runsc(
    rootfs: Path, command: Sequence[str], *, slots: int, limits: Limits | None = None
) -> Iterator[Bare]:
    """With `slots` that can run at the same time; leaves no cgroup and no file behind."""
    directory = Path(tempfile.mkdtemp(prefix="boxer-bench-bare-"))
    bare = Bare(
        os.environ.get("BOXER_RUNSC_PATH") or "runsc",
        os.environ.get("BOXER_PLATFORM") or "systrap",
        directory,
        f"boxer-bench-{os.getpid()}",
    )
    try:
        for slot in range(slots):
            bare.prepare(slot, rootfs, command, limits or Limits())
        yield bare
    finally:
        remove_group(bare.group)
        shutil.rmtree(directory, ignore_errors=True)


def remove_group(group: str) -> None:
    """Our cgroups in every hierarchy: runsc removes a container's own, not its parent.

    A run that was cut off has left processes there, too.
    """
    for root in (CGROUPS, *CGROUPS.glob("*/")):
        for directory in (*(root / group).glob("*/"), root / group):
            _remove(directory)


def _remove(directory: Path) -> None:
    for _ in range(100):
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            with contextlib.suppress(OSError):
                for pid in (directory / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.02)
        else:
            return


def oci_config(
    rootfs: Path, command: Sequence[str], limits: Limits, cgroups_path: str
) -> dict[str, Any]:
    """config.json of github.com/opencontainers/runtime-spec, and no more than it takes."""
    capabilities = ("bounding", "effective", "inheritable", "permitted", "ambient")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": NOBODY, "gid": NOBODY},
            "args": list(command),
            "env": [PATH],
            "cwd": "/",
            "capabilities": {kind: [] for kind in capabilities},
            "noNewPrivileges": True,
            "rlimits": [
                _rlimit("RLIMIT_NOFILE", limits.nofile),
                _rlimit("RLIMIT_NPROC", limits.pids),
            ],
        },
        "root": {"path": str(rootfs), "readonly": True},
        "hostname": "bare",
        "mounts": [
            _mount("/proc", "proc"),
            _mount("/dev", "tmpfs"),
            _mount("/sys", "sysfs"),
            _mount("/tmp", "tmpfs"),  # noqa: S108 (in the sandbox)
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
            "cgroupsPath": cgroups_path,
            "resources": {
                "memory": {"limit": limits.memory_mb << 20},
                "cpu": {"period": PERIOD_US, "quota": round(limits.cpu_cores * PERIOD_US)},
            },
        },
    }


def _rlimit(kind: str, value: int) -> dict[str, Any]:
    return {"type": kind, "hard": value, "soft": value}


def _mount(destination: str, kind: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": kind}
