"""How many runs a second clients get that are always busy, beside a loop of bare runsc."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks.figures import Bar, Figure, rate
from benchmarks.plan import Plan
from benchmarks.stage import COMMAND, IMAGE, PRINTED, Stage

BAR_AT, BAR = 8, Bar(0.95, at_least=True)


@dataclass(slots=True)
class Load:
    """Threads that run something over and over.

    Cycles that begin within the window count, and of each thread at least one. Until the last of
    them has ended everybody goes on, so that all of them had the same company.
    """

    begin: float
    end: float
    clients: int
    cycles: list[float] = field(default_factory=list)
    _past: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep_busy(self, run: Callable[[], object]) -> None:
        counted, past = 0, False
        while self._past < self.clients:
            started = time.perf_counter()
            try:
                run()
            except BaseException:
                with self._lock:
                    self._past = self.clients  # the others needn't wait for this one
                raise
            now = time.perf_counter()
            with self._lock:
                if self.begin <= started and (started < self.end or not counted):
                    self.cycles.append(now - started)
                    counted += 1
                if now >= self.end and counted and not past:
                    past = True
                    self._past += 1


def under_load(runs: list[Callable[[], object]], ramp_secs: float, secs: float) -> list[float]:
    """Each of `runs` over and over in a thread of its own; the cycles within the window."""
    begin = time.perf_counter() + ramp_secs
    load = Load(begin, begin + secs, len(runs))
    with ThreadPoolExecutor(len(runs)) as threads:
        for done in [threads.submit(load.keep_busy, run) for run in runs]:
            done.result()
    return load.cycles


def measure_throughput(stage: Stage, plan: Plan) -> Iterator[Figure]:
    """Bare before and after the service, so that both have the same machine on the average."""
    for level in plan.levels:
        bare = _bare(stage, plan, level)
        service = _service(stage, plan, level)
        bare += _bare(stage, plan, level)
        rates = rate(bare, level), rate(service, level)
        unit = "runs/s"
        name = f"bare loop, {level} at a time"
        yield Figure(f"throughput.{level}.bare", name, unit, (rates[0],))
        yield Figure(
            f"throughput.{level}.service",
            f"POST /run, {level} at a time",
            unit,
            (rates[1],),
            rates[1] / rates[0],
            "bare loop",
            BAR if level == BAR_AT else None,
        )


def _bare(stage: Stage, plan: Plan, level: int) -> list[float]:
    stage.settle()

    def slot(number: int) -> Callable[[], object]:
        return lambda: stage.bare.run(number, PRINTED)

    return under_load(
        [slot(number) for number in range(level)], plan.ramp_secs / 3, plan.window_secs / 2
    )


def _service(stage: Stage, plan: Plan, level: int) -> list[float]:
    stage.settle()
    with ExitStack() as stack:
        clients = [stack.enter_context(stage.warm.client()) for _ in range(level)]

        def by(number: int) -> Callable[[], object]:
            return lambda: clients[number].run(PRINTED, image=IMAGE, cmd=COMMAND)

        runs = [by(number) for number in range(level)]
        return under_load(runs, plan.ramp_secs, plan.window_secs)
