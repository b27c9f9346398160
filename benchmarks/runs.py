"""One command run in every way in turn, and warm runs one after another."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks.client import Answer, Client
from benchmarks.figures import Bar, Figure, Judged, percentile, ratio
from benchmarks.plan import Plan
from benchmarks.stage import COMMAND, IMAGE, PRINTED, Stage

INPUT_BYTES = 1024
MANY = 20
WRITES = ("python3", "-c", "open('/output/result', 'w').write('hello'); print('hello')")
BOOTED_MS = 100.0
"""A start that takes longer is one that had to boot: taking a sandbox takes a few milliseconds."""
NAMES = {
    "bare": "bare runsc run",
    "cold": "POST /run, cold",
    "warm": "POST /run, warm",
    "input": "POST /run, warm, 1 input file",
    "inputs": f"POST /run, warm, {MANY} input files",
    "output": "POST /run, warm, an output file",
}
BARS = {"cold": Bar(1.15), "warm": Bar(0.45), "input": Bar(0.50)}
OVERHEAD_BAR = Bar(12, Judged.MEDIAN)
SPREAD_BAR = Bar(1.6)
PHASES = {
    "queue": "waiting for a worker",
    "pull": "finding the image",
    "start": "getting a sandbox",
    "wall": "the command",
    "rest": "HTTP, database, wake-ups",
}


@dataclass(slots=True)
class Samples:
    """Milliseconds by way, and what the service said of its runs."""

    times: dict[str, list[float]] = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)

    def add(self, way: str, answer: Answer) -> None:
        self.times.setdefault(way, []).append(answer.latency)
        self.answers.setdefault(way, []).append(answer)


class Ways:
    """Prepares and takes one sample of each way."""

    def __init__(self, stage: Stage, warm: Client, cold: Client) -> None:
        self._stage = stage
        self._warm = warm
        self._cold = cold

    def prepare(self, way: str) -> None:
        """Not measured. Input files are gone after the run that used them."""
        for path in self._inputs(way):
            self._warm.upload(path, INPUT_BYTES)
        self._stage.settle()

    def sample(self, way: str, samples: Samples) -> None:
        if way == "bare":
            took = self._stage.bare.run(0, PRINTED) * 1000
            samples.times.setdefault(way, []).append(took)
            return
        client = self._cold if way == "cold" else self._warm
        command, persist = (WRITES, True) if way == "output" else (COMMAND, False)
        answer = client.run(
            PRINTED, image=IMAGE, cmd=command, files=self._inputs(way), persist=persist
        )
        samples.add(way, answer)

    @staticmethod
    def _inputs(way: str) -> list[str]:
        number = {"input": 1, "inputs": MANY}.get(way, 0)
        return [f"bench/input-{index}.txt" for index in range(number)]


def measure_ways(stage: Stage, plan: Plan, wanted: frozenset[str]) -> Iterator[Figure]:
    """Every way once each round, in another order each time. The first round only warms up."""
    ways = [way for way in NAMES if way in wanted]
    samples = Samples()
    with ExitStack() as stack:
        warm = stack.enter_context(stage.warm.client())
        cold = stack.enter_context(stage.cold.client())
        taker = Ways(stage, warm, cold)
        deadline = time.monotonic() + plan.round_secs
        for number in range(plan.rounds + 1):
            if number > 2 and time.monotonic() > deadline:
                break
            into = samples if number else Samples()
            turn = number % len(ways)
            for way in ways[turn:] + ways[:turn]:
                taker.prepare(way)
                taker.sample(way, into)
    yield from way_figures(samples)


def way_figures(samples: Samples) -> Iterator[Figure]:
    bare = samples.times["bare"]
    yield Figure("runs.bare", NAMES["bare"], "ms", tuple(bare))
    for way, times in samples.times.items():
        if way != "bare":
            yield Figure(
                f"runs.{way}",
                _with_mistakes(way, samples.answers[way]),
                "ms",
                tuple(times),
                ratio(times, bare),
                "bare p50",
                BARS.get(way),
                phase_medians(samples.answers[way]),
            )
    if answers := samples.answers.get("warm"):
        yield from _phase_figures(answers)


def _with_mistakes(way: str, answers: list[Answer]) -> str:
    """The pool was full before each of them, so all of them ought to have been warm."""
    booted = 0 if way == "cold" else sum(answer.start > BOOTED_MS for answer in answers)
    return f"{NAMES[way]} ({booted} of {len(answers)} weren't)" if booted else NAMES[way]


def phase_medians(answers: list[Answer]) -> tuple[tuple[str, float], ...]:
    return tuple(
        (phase, percentile([float(getattr(answer, phase)) for answer in answers], 50))
        for phase in PHASES
    )


def _phase_figures(answers: list[Answer]) -> Iterator[Figure]:
    overhead = tuple(answer.overhead for answer in answers)
    name = "service overhead (warm, latency - wall_ms)"
    yield Figure("overhead", name, "ms", overhead, bar=OVERHEAD_BAR)
    latency = [answer.latency for answer in answers]
    for phase, what in PHASES.items():
        spent = tuple(float(getattr(answer, phase)) for answer in answers)
        share = ratio(spent, latency)
        yield Figure(f"phase.{phase}", f"  {phase}: {what}", "ms", spent, share, "warm p50")


def measure_bursts(stage: Stage, plan: Plan) -> Iterator[Figure]:
    """As many one after another as the pool holds; then as many again that never wait for it."""
    with stage.warm.client() as client:

        def run() -> Answer:
            return client.run(PRINTED, image=IMAGE, cmd=COMMAND)

        stage.settle()
        run()
        answers = _bursts(stage, plan, run)
        stage.settle()
        plain = [run() for _ in answers]
    yield _spread("bursts.warm", "warm runs one after another", answers, SPREAD_BAR)
    yield _spread("bursts.plain", "runs one after another without end", plain, None)


def _bursts(stage: Stage, plan: Plan, run: Callable[[], Answer]) -> list[Answer]:
    deadline = time.monotonic() + plan.burst_secs
    answers: list[Answer] = []
    for number in range(plan.bursts):
        if number and time.monotonic() > deadline:
            break
        stage.settle()
        answers += [run() for _ in range(stage.warm.pool_size)]
    return answers


def _spread(key: str, name: str, answers: list[Answer], bar: Bar | None) -> Figure:
    times = tuple(answer.latency for answer in answers)
    warm = sum(answer.start <= BOOTED_MS for answer in answers)
    spread = percentile(times, 95) / percentile(times, 50)
    return Figure(key, f"{name} ({warm} of {len(times)} warm)", "ms", times, spread, "own p50", bar)
