"""A sandbox's cgroup: limits set, usage read, every process in it ended; v1 and v2 alike.

Ours are made and filled by us rather than by runsc, so that both versions work the same way, limits
can be set when a run begins, and whatever a crash leaves behind is found by its name.
Sources: kernel documentation, admin-guide/cgroup-v1/ and admin-guide/cgroup-v2.rst.
"""

import contextlib
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from executions.sandbox.reaping import reap, reap_dead
from executions.sandbox.spec import Limits, SandboxError

MIB = 1 << 20
PERIOD_US = 100_000
HOST_PIDS = 4096
"""Wide on purpose: a tight pids cgroup kills gVisor's kernel instead of the program's fork."""
BOOT_BYTES = 512 * MIB
"""What a sandbox may use until its run sets the run's own limit."""
OVERHEAD_BYTES = 24 * MIB
"""What gVisor's kernel may grow by during a run on top of what it used when booted, plus 1/64 of
the program's memory for the page tables that map it."""


KILL_TIMEOUT_SECS = 20.0
"""A process that frees gigabytes on a busy machine takes its time to end."""
_BATCH = 64
"""Descriptors of processes that are open at once."""


class CgroupError(SandboxError):
    """A limit can't be set or a cgroup can't be made on this host."""


class Cgroup(ABC):
    """One sandbox's cgroup. Every path is made from `group`, which only we choose."""

    def __init__(self, directories: tuple[Path, ...]) -> None:
        self.directories = directories

    def create(self) -> None:
        for directory in self.directories:
            try:
                directory.mkdir(parents=True)
            except OSError as error:
                raise CgroupError(f"making cgroup {directory}: {error}") from error
        self.limit_boot()

    @property
    def doors(self) -> list[str]:
        """Files that take the process which is to enter."""
        return [f"{directory}/cgroup.procs" for directory in self.directories]

    @abstractmethod
    def limit_boot(self) -> None: ...

    @abstractmethod
    def give_way(self) -> None:
        """Use the CPU only where nobody else wants it, until limit()."""

    @abstractmethod
    def freeze(self) -> None:
        """Stop every process in it, where the kernel can."""

    @abstractmethod
    def thaw(self) -> None: ...

    @abstractmethod
    def forbid_forks(self) -> None:
        """From here on nothing in it can make another process."""

    @abstractmethod
    def limit(self, limits: Limits) -> None:
        """Set a run's limits. Raises CgroupError when one can't be enforced."""

    @abstractmethod
    def cpu_ns(self) -> int: ...

    @abstractmethod
    def memory_bytes(self) -> int: ...

    @abstractmethod
    def forget_peak(self) -> None:
        """Let peak_bytes() start from now, where the kernel can."""

    @abstractmethod
    def peak_bytes(self) -> int: ...

    @abstractmethod
    def oom_kills(self) -> int: ...

    def pids(self) -> list[int]:
        found: set[int] = set()
        for directory in self.directories:
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
        found.discard(0)  # a process of another pid namespace
        return sorted(found)

    def kill(self, timeout: float = KILL_TIMEOUT_SECS) -> None:
        """End every process in it and reap those that are our children (or become so)."""
        self.forbid_forks()
        deadline = time.monotonic() + timeout
        pause = 0.0005
        seen: set[int] = set()
        while pids := self.pids():
            seen.update(pids)
            for start in range(0, len(pids), _BATCH):
                self._signal(pids[start : start + _BATCH])
            self.thaw()  # the frozen die only then
            for pid in pids:
                reap(pid)
            if time.monotonic() > deadline:
                raise CgroupError(f"processes {pids} of {self.directories[0]} don't end")
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        reap_dead(seen)

    def _signal(self, pids: Sequence[int]) -> None:
        """SIGKILL to those that are still in it once a descriptor holds them.

        A number alone may be another process's by the time it is used.
        """
        held: dict[int, int] = {}
        try:
            for pid in pids:
                with contextlib.suppress(OSError):
                    held[pid] = os.pidfd_open(pid)
            for pid in held.keys() & set(self.pids()):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(held[pid], signal.SIGKILL)
        finally:
            for descriptor in held.values():
                os.close(descriptor)

    def remove(self) -> None:
        """Remove the (empty) directories; a kernel that is still letting go is given a moment."""
        for directory in self.directories:
            for attempt in range(50):
                try:
                    directory.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if attempt == 49:
                        raise
                    time.sleep(0.01)
                else:
                    break

    def exists(self) -> bool:
        return any(directory.exists() for directory in self.directories)


class Uncontrolled(Cgroup):
    """No cgroup at all, where an operator gave up limits of CPU and memory.

    The processes of a sandbox are then those that name its bundle to runsc, and what descends from
    them: also those of a boot that was cut off half-way, which no state file tells of.
    """

    def __init__(self, bundle: Path) -> None:
        super().__init__(())
        self._arguments = {
            os.fsencode(f"--bundle={bundle}"),
            os.fsencode(f"--process={bundle}/shell.json"),
        }

    def limit_boot(self) -> None:
        pass

    def give_way(self) -> None:
        pass

    def freeze(self) -> None:
        pass

    def thaw(self) -> None:
        pass

    def forbid_forks(self) -> None:
        pass

    def limit(self, limits: Limits) -> None:
        pass

    def cpu_ns(self) -> int:
        return 0

    def memory_bytes(self) -> int:
        return 0

    def forget_peak(self) -> None:
        pass

    def peak_bytes(self) -> int:
        return 0

    def oom_kills(self) -> int:
        return 0

    def pids(self) -> list[int]:
        found: set[int] = set()
        processes = Path("/proc").glob("[0-9]*")
        todo = [int(process.name) for process in processes if self._is_root(process)]
        while todo:
            pid = todo.pop()
            if pid not in found:
                found.add(pid)
                todo += _children(pid)
        return sorted(found)

    def _is_root(self, process: Path) -> bool:
        """Whether it is runsc (it runs as root) or calls it. A zombie has no arguments."""
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            return not self._arguments.isdisjoint(arguments) and process.stat().st_uid == 0
        return False


def _children(pid: int) -> list[int]:
    """Of all of its threads: each has children of its own."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def write(file: Path, value: str) -> None:
    try:
        file.write_text(value)
    except OSError as error:
        raise CgroupError(f"setting {file} to {value}: {error.strerror}") from error


def number(file: Path, key: str = "") -> int:
    """A file's number, or that of its line `key N`."""
    text = file.read_text()
    if not key:
        return int(text)
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0


def memory_limit(baseline: int, limits: Limits) -> int:
    """Bytes for a cgroup whose sandbox used `baseline` bytes when its run began."""
    program = limits.memory_mb * MIB
    return baseline + program + program // 64 + OVERHEAD_BYTES


def cpu_quota_us(limits: Limits) -> int:
    return max(1000, round(limits.cpu_cores * PERIOD_US))
