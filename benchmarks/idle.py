"""What a service costs that has a full pool and nothing to do."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.figures import Bar, Figure, Judged
from benchmarks.plan import Plan
from benchmarks.stage import Stage

CPU_BAR = Bar(2, Judged.MEDIAN)
REST_SECS = 2.0


def measure_idle(stage: Stage, plan: Plan) -> Iterator[Figure]:
    """In all, and by part of the service."""
    stage.settle()
    time.sleep(REST_SECS)
    before, started = _cpu_by_part(stage), time.monotonic()
    time.sleep(plan.idle_secs)
    after, ended = _cpu_by_part(stage), time.monotonic()
    percent = {
        part: 100 * (used - before.get(part, 0.0)) / (ended - started)
        for part, used in after.items()
    }
    size = stage.warm.pool_size
    yield from _figures("idle.cpu", f"idle, pool of {size}: CPU of one core", "%", percent, CPU_BAR)
    parts = stage.warm.parts()
    memory = {
        part: sum(_memory_kb(process.pid, "Pss") for process in processes) / 1024
        for part, processes in parts.items()
    }
    yield from _figures("idle.memory", "idle: memory (PSS)", "MB", memory, None)
    number = float(sum(len(processes) for processes in parts.values()))
    yield Figure("idle.processes", "idle: processes", "", (number,))


def _figures(
    key: str, name: str, unit: str, by_part: dict[str, float], bar: Bar | None
) -> Iterator[Figure]:
    yield Figure(key, name, unit, (sum(by_part.values()),), bar=bar)
    for part, value in by_part.items():
        yield Figure(f"{key}.{part}", f"  {part}", unit, (value,))


def _cpu_by_part(stage: Stage) -> dict[str, float]:
    return {part: cpu_secs(processes) for part, processes in stage.warm.parts().items()}


def cpu_secs(processes: list[psutil.Process]) -> float:
    """Used so far, by the dead children that they have waited for as well.

    So nothing is lost or counted twice when a process ends between two looks.
    """
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            total += used.user + used.system + used.children_user + used.children_system
    return total


def _memory_kb(pid: int, key: str) -> int:
    """From smaps_rollup, see proc_pid_smaps(5)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1])
    return 0
