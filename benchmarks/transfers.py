"""Files up and down, and what that does to the memory of the web process."""

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.figures import Bar, Figure, Judged
from benchmarks.plan import Plan
from benchmarks.stage import Stage

MB = 1_000_000
GROWTH_BAR = Bar(20, Judged.MEDIAN)
GROWTH_AT_MB = 100


def measure_files(stage: Stage, plan: Plan) -> Iterator[Figure]:
    """The first megabyte only warms up."""
    stage.settle()
    web = stage.warm.web()
    with stage.warm.client() as client:
        client.upload("bench/first", MB)
        client.download("bench/first", MB)
        for megabytes in plan.sizes_mb:
            path, size = f"bench/{megabytes}", megabytes * MB

            def upload(path: str = path, size: int = size) -> float:
                return client.upload(path, size)

            def download(path: str = path, size: int = size) -> float:
                return client.download(path, size)

            bar = GROWTH_BAR if megabytes == GROWTH_AT_MB else None
            yield from _figures(web, "upload", upload, megabytes, plan.transfers, bar)
            yield from _figures(web, "download", download, megabytes, plan.transfers, None)


def _figures(
    web: int, what: str, move: Callable[[], float], megabytes: int, times: int, bar: Bar | None
) -> Iterator[Figure]:
    taken, grown = [], []
    for _ in range(times):
        before = forget_peak(web)
        taken.append(move() * 1000)
        grown.append((peak_bytes(web) - before) / MB)
    name = f"{what} {megabytes} MB"
    yield Figure(f"files.{what}.{megabytes}", name, "ms", tuple(taken))
    growth = (max(0.0, *grown),)
    name = f"  {what} {megabytes} MB: the web process grew by"
    yield Figure(f"files.{what}.{megabytes}.growth", name, "MB", growth, bar=bar)


def forget_peak(pid: int) -> int:
    """Let peak_bytes() start from now, see proc_pid_clear_refs(5); bytes that are resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    return _status_bytes(pid, "VmHWM")


def _status_bytes(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"process {pid} has no {key}")
