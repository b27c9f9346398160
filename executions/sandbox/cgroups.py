"""The two versions of cgroups, and which one this host mounts."""

import contextlib
import errno
import os
from pathlib import Path

from executions.sandbox import kernel
from executions.sandbox.cgroup import (
    BOOT_BYTES,
    HOST_PIDS,
    KILL_TIMEOUT_SECS,
    PERIOD_US,
    Cgroup,
    CgroupError,
    cpu_quota_us,
    memory_limit,
    number,
    write,
)
from executions.sandbox.reaping import reap_dead
from executions.sandbox.spec import Limits


class CgroupV1(Cgroup):
    """Controllers each in a hierarchy of its own (or joined, like cpu,cpuacct)."""

    def __init__(self, hierarchies: dict[str, Path], group: str) -> None:
        self._at = {name: root / group for name, root in hierarchies.items()}
        super().__init__(tuple(dict.fromkeys(self._at.values())))

    def limit_boot(self) -> None:
        write(self._at["pids"] / "pids.max", str(HOST_PIDS))
        self._limit_memory(BOOT_BYTES)

    def give_way(self) -> None:
        write(self._at["cpu"] / "cpu.shares", "2")

    def freeze(self) -> None:
        if "freezer" in self._at:
            write(self._at["freezer"] / "freezer.state", "FROZEN")

    def thaw(self) -> None:
        if "freezer" in self._at:
            with contextlib.suppress(FileNotFoundError):
                (self._at["freezer"] / "freezer.state").write_text("THAWED")

    def forbid_forks(self) -> None:
        with contextlib.suppress(OSError):
            (self._at["pids"] / "pids.max").write_text("0")

    def limit(self, limits: Limits) -> None:
        self._limit_memory(memory_limit(self.memory_bytes(), limits))
        write(self._at["cpu"] / "cpu.shares", "1024")
        write(self._at["cpu"] / "cpu.cfs_period_us", str(PERIOD_US))
        write(self._at["cpu"] / "cpu.cfs_quota_us", str(cpu_quota_us(limits)))

    def _limit_memory(self, limit: int) -> None:
        """memory+swap may never be below memory: its order of setting depends on the direction."""
        memory = self._at["memory"] / "memory.limit_in_bytes"
        swap = self._at["memory"] / "memory.memsw.limit_in_bytes"
        files = [memory, swap] if swap.exists() else [memory]
        if len(files) == 2 and number(swap) < limit:
            files.reverse()
        for file in files:
            write(file, str(limit))

    def cpu_ns(self) -> int:
        return number(self._at["cpuacct"] / "cpuacct.usage")

    def memory_bytes(self) -> int:
        return number(self._at["memory"] / "memory.usage_in_bytes")

    def forget_peak(self) -> None:
        write(self._at["memory"] / "memory.max_usage_in_bytes", "0")

    def peak_bytes(self) -> int:
        return number(self._at["memory"] / "memory.max_usage_in_bytes")

    def oom_kills(self) -> int:
        return number(self._at["memory"] / "memory.oom_control", "oom_kill")


class CgroupV2(Cgroup):
    """All controllers in one hierarchy."""

    CONTROLLERS = ("cpu", "memory", "pids")
    REST = "boxer-host"
    """Where a container's other processes go, see _make_room."""

    def __init__(self, root: Path, group: str) -> None:
        self._root = root
        self._at = root / group
        self._peak: int | None = None
        super().__init__((self._at,))

    def create(self) -> None:
        """Controllers are handed down from the root to the parent of our group."""
        parents = list(reversed(self._at.relative_to(self._root).parents))
        for parent in parents:
            directory = self._root / parent
            try:
                directory.mkdir(exist_ok=True)
                self._hand_down(directory)
            except OSError as error:
                raise CgroupError(f"preparing cgroup {directory}: {error}") from error
        super().create()

    def _hand_down(self, directory: Path) -> None:
        control = directory / "cgroup.subtree_control"
        enabled = control.read_text().split()
        missing = " ".join(f"+{name}" for name in self.CONTROLLERS if name not in enabled)
        if not missing:
            return
        try:
            control.write_text(missing)
        except OSError as error:
            if error.errno != errno.EBUSY or directory != self._root:
                raise
            self._make_room()
            control.write_text(missing)

    def _make_room(self) -> None:
        """Move every process of the root into a cgroup beside ours.

        Only the real root may hold processes and hand down controllers. In a container the root
        that we see is a cgroup of the host, and the container's processes (we, too) are in it.
        """
        rest = self._root / self.REST
        rest.mkdir(exist_ok=True)
        for _ in range(20):  # Some may fork meanwhile.
            pids = (self._root / "cgroup.procs").read_text().split()
            if not pids:
                return
            for pid in pids:
                # 0, a process of another pid namespace, would mean ourselves.
                with contextlib.suppress(ProcessLookupError):
                    (rest / "cgroup.procs").write_text(pid)

    def limit_boot(self) -> None:
        write(self._at / "pids.max", str(HOST_PIDS))
        write(self._at / "memory.max", str(BOOT_BYTES))
        self._forbid_swap()

    def give_way(self) -> None:
        write(self._at / "cpu.weight", "1")

    def freeze(self) -> None:
        write(self._at / "cgroup.freeze", "1")

    def thaw(self) -> None:
        with contextlib.suppress(OSError):
            (self._at / "cgroup.freeze").write_text("0")

    def forbid_forks(self) -> None:
        with contextlib.suppress(OSError):
            (self._at / "pids.max").write_text("0")

    def _forbid_swap(self) -> None:
        swap = self._at / "memory.swap.max"
        if swap.exists():
            write(swap, "0")

    def limit(self, limits: Limits) -> None:
        write(self._at / "memory.max", str(memory_limit(self.memory_bytes(), limits)))
        write(self._at / "cpu.weight", "100")
        write(self._at / "cpu.max", f"{cpu_quota_us(limits)} {PERIOD_US}")

    def cpu_ns(self) -> int:
        return number(self._at / "cpu.stat", "usage_usec") * 1000

    def memory_bytes(self) -> int:
        return number(self._at / "memory.current")

    def forget_peak(self) -> None:
        """Kernels before 6.12 can't; the peak then includes the boot, which used less anyway.

        It is forgotten only for who reads on through the same descriptor.
        """
        self._close_peak()
        with contextlib.suppress(OSError):
            self._peak = os.open(self._at / "memory.peak", os.O_RDWR | os.O_CLOEXEC)
            os.write(self._peak, b"0")

    def peak_bytes(self) -> int:
        if self._peak is not None:
            return int(os.pread(self._peak, 32, 0))
        file = self._at / "memory.peak"
        return number(file) if file.exists() else self.memory_bytes()

    def _close_peak(self) -> None:
        if self._peak is not None:
            os.close(self._peak)
            self._peak = None

    def remove(self) -> None:
        self._close_peak()
        super().remove()

    def oom_kills(self) -> int:
        return number(self._at / "memory.events", "oom_kill")

    def kill(self, timeout: float = KILL_TIMEOUT_SECS) -> None:
        """cgroup.kill (since Linux 5.14) takes forks that happen meanwhile along."""
        seen = self.pids()
        with contextlib.suppress(OSError):
            (self._at / "cgroup.kill").write_text("1")
        super().kill(timeout)
        reap_dead(seen)


class Hierarchy:
    """What this host mounts: makes the cgroups of one home's sandboxes."""

    NEEDED = ("cpu", "cpuacct", "memory", "pids")
    USEFUL = ("freezer",)

    def __init__(self, v1: dict[str, Path], v2: Path | None, group: str) -> None:
        self._v1 = v1
        self._v2 = v2
        self.group = group

    @classmethod
    def of_host(cls, group: str, mountinfo: Path = Path("/proc/self/mountinfo")) -> "Hierarchy":
        """Raises CgroupError when a controller that limits need isn't mounted."""
        v1, v2 = _mounted(mountinfo)
        missing = [name for name in cls.NEEDED if name not in v1]
        if not missing:
            return cls(v1, None, group)
        if v2 is not None:
            offered = (v2 / "cgroup.controllers").read_text().split()
            if offered:
                missing = [name for name in CgroupV2.CONTROLLERS if name not in offered]
            if not missing:
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
        used = {name: self._v1[name] for name in self.NEEDED + self.USEFUL if name in self._v1}
        return CgroupV1(used, name)

    def remove_group(self) -> None:
        """Remove the home's own (empty) directories; one that is in use stays."""
        roots = [self._v2] if self._v2 is not None else list(self._v1.values())
        for root in roots:
            with contextlib.suppress(OSError):
                (root / self.group).rmdir()


def _mounted(mountinfo: Path) -> tuple[dict[str, Path], Path | None]:
    """Controllers of v1 and the root of v2."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for mount in kernel.mounts(mountinfo):
        if mount.kind == "cgroup2":
            v2 = v2 or mount.point
        elif mount.kind == "cgroup":
            v1.update(dict.fromkeys(mount.options, mount.point))
    return v1, v2
