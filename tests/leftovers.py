"""What Boxer of a home has left on the machine: processes, mounts, cgroups, network namespaces."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil


def leftovers(homes: Iterable[Path]) -> list[str]:
    """Everything of these homes; each as a line that names it."""
    homes = list(homes)
    return [*processes(homes), *traces_of_runs(homes)]


def traces_of_runs(homes: Iterable[Path]) -> list[str]:
    """What is to be gone as soon as the runs have ended, whatever else still serves."""
    homes = list(homes)
    return [*mounts(homes), *named_after(homes)]


def processes(homes: list[Path]) -> Iterator[str]:
    ourselves = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), process.environ().get("BOXER_HOME", "")]
        except psutil.Error:
            continue
        if process.pid in ourselves or process.status() == psutil.STATUS_ZOMBIE:
            continue
        if any(str(home) in word for home in homes for word in words):
            yield f"process {process.pid}: {' '.join(words)[:200]}"


def mounts(homes: list[Path]) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split(" ")[4]
        if any(point.startswith(f"{home}/") for home in homes):
            yield f"mount on {point}"


def named_after(homes: list[Path]) -> Iterator[str]:
    """cgroups and network namespaces carry a digest of the home's path."""
    groups = [f"boxer-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}" for home in homes]
    roots = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/"), Path("/run/netns")]
    for root in roots:
        for group in groups:
            for found in root.glob(f"{group}*"):
                yield f"{found}"
