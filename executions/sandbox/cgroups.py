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
from collections.abc import Iterator
from pathlib import Path

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
            with contextlib.suppress(FileNotFoundError, OSError):
                found.update(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
        found.discard(0)  # a process of another pid namespace
        return sorted(found)

    def kill(self, timeout: float = 5.0) -> None:
        """End every process in it and reap those that are our children (or become so)."""
        deadline = time.monotonic() + timeout
        pause = 0.0005
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in pids:
                reap(pid)
            if time.monotonic() > deadline:
                raise CgroupError(f"processes {pids} of {self.directories[0]} don't end")
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

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

    The processes of a sandbox are then its kernel and gofer, and what descends from them.
    """

    def __init__(self) -> None:
        super().__init__(())
        self.roots: list[int] = []

    def limit_boot(self) -> None:
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
        found: list[int] = []
        todo = list(self.roots)
        while todo:
            pid = todo.pop()
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                todo += [int(child) for child in children]
                found.append(pid)
        return found


def reap(pid: int) -> None:
    """Take the exit status of a process if it is a child of ours that has ended."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _write(file: Path, value: str) -> None:
    try:
        file.write_text(value)
    except OSError as error:
        raise CgroupError(f"setting {file} to {value}: {error.strerror}") from error


def _number(file: Path, key: str = "") -> int:
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


class CgroupV1(Cgroup):
    """Controllers each in a hierarchy of its own (or joined, like cpu,cpuacct)."""

    def __init__(self, hierarchies: dict[str, Path], group: str) -> None:
        self._at = {name: root / group for name, root in hierarchies.items()}
        super().__init__(tuple(dict.fromkeys(self._at.values())))

    def limit_boot(self) -> None:
        _write(self._at["pids"] / "pids.max", str(HOST_PIDS))
        self._limit_memory(BOOT_BYTES)

    def limit(self, limits: Limits) -> None:
        self._limit_memory(memory_limit(self.memory_bytes(), limits))
        _write(self._at["cpu"] / "cpu.cfs_period_us", str(PERIOD_US))
        _write(self._at["cpu"] / "cpu.cfs_quota_us", str(cpu_quota_us(limits)))

    def _limit_memory(self, limit: int) -> None:
        """memory+swap may never be below memory: its order of setting depends on the direction."""
        memory = self._at["memory"] / "memory.limit_in_bytes"
        swap = self._at["memory"] / "memory.memsw.limit_in_bytes"
        files = [memory, swap] if swap.exists() else [memory]
        if len(files) == 2 and _number(swap) < limit:
            files.reverse()
        for file in files:
            _write(file, str(limit))

    def cpu_ns(self) -> int:
        return _number(self._at["cpuacct"] / "cpuacct.usage")

    def memory_bytes(self) -> int:
        return _number(self._at["memory"] / "memory.usage_in_bytes")

    def forget_peak(self) -> None:
        _write(self._at["memory"] / "memory.max_usage_in_bytes", "0")

    def peak_bytes(self) -> int:
        return _number(self._at["memory"] / "memory.max_usage_in_bytes")

    def oom_kills(self) -> int:
        return _number(self._at["memory"] / "memory.oom_control", "oom_kill")


class CgroupV2(Cgroup):
    """All controllers in one hierarchy."""

    def __init__(self, root: Path, group: str) -> None:
        self._root = root
        self._at = root / group
        super().__init__((self._at,))

    def create(self) -> None:
        """Controllers are handed down from the root to the parent of our group."""
        parents = list(reversed(self._at.relative_to(self._root).parents))
        for parent in parents:
            directory = self._root / parent
            directory.mkdir(exist_ok=True)
            _write(directory / "cgroup.subtree_control", "+cpu +memory +pids")
        super().create()

    def limit_boot(self) -> None:
        _write(self._at / "pids.max", str(HOST_PIDS))
        _write(self._at / "memory.max", str(BOOT_BYTES))
        self._forbid_swap()

    def _forbid_swap(self) -> None:
        swap = self._at / "memory.swap.max"
        if swap.exists():
            _write(swap, "0")

    def limit(self, limits: Limits) -> None:
        _write(self._at / "memory.max", str(memory_limit(self.memory_bytes(), limits)))
        _write(self._at / "cpu.max", f"{cpu_quota_us(limits)} {PERIOD_US}")

    def cpu_ns(self) -> int:
        return _number(self._at / "cpu.stat", "usage_usec") * 1000

    def memory_bytes(self) -> int:
        return _number(self._at / "memory.current")

    def forget_peak(self) -> None:
        """Kernels before 6.12 can't; the peak then includes the boot, which used less anyway."""
        with contextlib.suppress(OSError):
            (self._at / "memory.peak").write_text("0")

    def peak_bytes(self) -> int:
        file = self._at / "memory.peak"
        return _number(file) if file.exists() else self.memory_bytes()

    def oom_kills(self) -> int:
        return _number(self._at / "memory.events", "oom_kill")

    def kill(self, timeout: float = 5.0) -> None:
        """cgroup.kill (since Linux 5.14) takes forks that happen meanwhile along."""
        with contextlib.suppress(OSError):
            (self._at / "cgroup.kill").write_text("1")
        super().kill(timeout)


class Hierarchy:
    """What this host mounts: makes the cgroups of one home's sandboxes."""

    NEEDED = ("cpu", "cpuacct", "memory", "pids")

    def __init__(self, v1: dict[str, Path], v2: Path | None, group: str) -> None:
        self._v1 = v1
        self._v2 = v2
        self.group = group

    @classmethod
    def of_host(cls, group: str, mountinfo: Path = Path("/proc/self/mountinfo")) -> "Hierarchy":
        """Raises CgroupError when a controller that limits need isn't mounted."""
        v1, v2 = _mounted(mountinfo.read_text())
        missing = [name for name in cls.NEEDED if name not in v1]
        if not missing:
            return cls(v1, None, group)
        if v2 is not None:
            offered = (v2 / "cgroup.controllers").read_text().split()
            if all(name in offered for name in ("cpu", "memory", "pids")):
                return cls({}, v2, group)
        raise CgroupError(
            f"cgroup controllers are missing on this host: {', '.join(missing)} "
            "(BOXER_IGNORE_CGROUPS=true runs without limits of CPU and memory)"
        )

    @property
    def version(self) -> int:
        return 1 if self._v1 else 2

    def cgroup(self, sandbox_id: str) -> Cgroup:
        name = f"{self.group}/{sandbox_id}"
        if self._v2 is not None:
            return CgroupV2(self._v2, name)
        return CgroupV1({name: self._v1[name] for name in self.NEEDED}, name)

    def leftovers(self) -> Iterator[str]:
        """Ids of all sandboxes that have a cgroup now."""
        roots = [self._v2] if self._v2 is not None else list(self._v1.values())
        found: set[str] = set()
        for root in roots:
            with contextlib.suppress(FileNotFoundError), os.scandir(root / self.group) as entries:
                found.update(entry.name for entry in entries if entry.is_dir())
        yield from sorted(found)

    def remove_group(self) -> None:
        """Remove the home's own (empty) directories; one that is in use stays."""
        roots = [self._v2] if self._v2 is not None else list(self._v1.values())
        for root in roots:
            with contextlib.suppress(OSError):
                (root / self.group).rmdir()


def _mounted(mountinfo: str) -> tuple[dict[str, Path], Path | None]:
    """Controllers of v1 and the root of v2 (fields: see proc_pid_mountinfo(5))."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        kind, _, options = tail.split(" ", 2)
        point = Path(fields.split(" ")[4])
        if kind == "cgroup2":
            v2 = v2 or point
        elif kind == "cgroup":
            v1.update(dict.fromkeys(options.split(","), point))
    return v1, v2
