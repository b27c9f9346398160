"""What became of each case, said once it has ended and somebody asks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from executions.batches.matching import Matcher
from executions.batches.models import Batch, Case, Compare, Verdict
from executions.models import UNFINISHED, Execution, Outcome, Status

MOST_MATCHED_BYTES = 1 << 20
"""Of an output that a regular expression is tried on."""
AT_ONCE = 20
"""Each may have printed some MiB."""


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Verdict
    remark: str = ""


def judge(batch: Batch) -> None:
    """Write the verdicts that are due. Two that ask at once come to the same."""
    with _matcher() as matcher:
        while due := list(_due(batch)):
            for case in due:
                found = _judgement(case, matcher)
                Case.objects.filter(pk=case.pk, verdict="").update(
                    verdict=found.verdict, remark=found.remark
                )


def _due(batch: Batch) -> Iterator[Case]:
    ended = batch.cases.filter(verdict="", execution__isnull=False)
    ended = ended.exclude(execution__status__in=UNFINISHED)
    yield from ended.select_related("execution__output").order_by("number")[:AT_ONCE]


@contextmanager
def _matcher() -> Iterator[Matcher]:
    matcher = Matcher()
    try:
        yield matcher
    finally:
        matcher.close()


_OUTCOMES = {
    Outcome.TIMED_OUT: Verdict.TIMED_OUT,
    Outcome.OUT_OF_MEMORY: Verdict.OUT_OF_MEMORY,
    Outcome.SIGNALLED: Verdict.FAILED,
    Outcome.OUTPUT_LIMIT: Verdict.FAILED,
}


def _judgement(case: Case, matcher: Matcher) -> Judgement:
    execution = case.execution
    if execution is None or execution.status == Status.CANCELLED:
        return Judgement(Verdict.ERROR, "cancelled")
    if execution.outcome != Outcome.EXITED:
        return Judgement(
            _OUTCOMES.get(Outcome(execution.outcome), Verdict.ERROR), execution.outcome
        )
    if execution.exit_code:
        return Judgement(Verdict.FAILED, f"exited with {execution.exit_code}")
    if case.expected is None:
        return Judgement(Verdict.PASSED)
    return _compared(case, _printed(execution), matcher)


def _printed(execution: Execution) -> bytes:
    return bytes(execution.output.stdout) if hasattr(execution, "output") else b""


def _compared(case: Case, stdout: bytes, matcher: Matcher) -> Judgement:
    expected = case.expected or ""
    if case.compare == Compare.REGEX:
        if len(stdout) > MOST_MATCHED_BYTES:
            return Judgement(Verdict.ERROR, "the output is too long for a regular expression")
        matched = matcher.matches(expected, stdout.decode("utf-8", "replace"))
        if matched is None:
            return Judgement(Verdict.ERROR, "the regular expression failed or took too long")
    elif case.compare == Compare.TRIM:
        matched = _trimmed(stdout) == _trimmed(expected.encode())
    else:
        matched = stdout == expected.encode()
    if matched:
        return Judgement(Verdict.PASSED)
    return Judgement(Verdict.FAILED, "stdout isn't what was expected")


def _trimmed(text: bytes) -> bytes:
    return b"\n".join(line.rstrip() for line in text.split(b"\n")).rstrip()
