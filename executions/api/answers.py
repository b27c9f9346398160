"""What a client is told about an execution that has ended."""

from django.http import JsonResponse

from executions.ends import Ended
from executions.errors import (
    BoxerError,
    ImageRefused,
    InfraError,
    InvalidRequest,
    OutputLimitExceeded,
    RunCancelled,
    ServiceBusy,
    WallClockExceeded,
)
from executions.models import Outcome, Status

BLAMES_THE_REQUEST = frozenset({"image_not_found", "image_too_large", "file_refused"})
KILLED = 137  # 128 + SIGKILL, which is what the kernel ends a program with that is out of memory


def answer(execution: Ended) -> JsonResponse:
    """The program's end; raises the domain error for a run that didn't come to one."""
    if execution.status == Status.CANCELLED:
        raise RunCancelled("the run was cancelled", exec_id=execution.exec_id)
    if execution.outcome in (Outcome.TIMED_OUT, Outcome.OUTPUT_LIMIT):
        raise _stopped(execution)
    if execution.outcome == Outcome.INFRA_ERROR:
        raise _failed(execution)
    return JsonResponse(
        {
            "exec_id": execution.exec_id,
            "exit_code": _exit_code(execution),
            **_printed(execution),
            "wall_ms": execution.wall_ms or 0,
            "status": execution.status,
            "outcome": execution.outcome,
            "signal": execution.signal,
            "cpu_ms": execution.cpu_ms,
            "max_memory_bytes": execution.max_memory_bytes,
            "image_digest": execution.image_digest,
            "queue_ms": execution.queue_ms,
            "pull_ms": execution.pull_ms,
            "start_ms": execution.start_ms,
        }
    )


def _exit_code(execution: Ended) -> int:
    if execution.exit_code is not None:
        return execution.exit_code
    return 128 + execution.signal if execution.signal else KILLED


def _printed(execution: Ended) -> dict[str, str]:
    return {
        "stdout": execution.stdout.decode("utf-8", "replace"),
        "stderr": execution.stderr.decode("utf-8", "replace"),
    }


def _stopped(execution: Ended) -> BoxerError:
    """Boxer ended it; what it had printed until then goes along."""
    printed = _printed(execution)
    if execution.outcome == Outcome.TIMED_OUT:
        return WallClockExceeded(
            f"wall clock limit of {execution.wall_clock_secs} s exceeded",
            exec_id=execution.exec_id,
            details=printed,
        )
    return OutputLimitExceeded(
        "the program printed more than the output limit allows",
        exec_id=execution.exec_id,
        details=printed,
    )


def _failed(execution: Ended) -> BoxerError:
    exec_id = execution.exec_id
    code = execution.error_code
    message = execution.error or "the run failed for a reason that is not the program's"
    if code in BLAMES_THE_REQUEST:
        return InvalidRequest(message, code=code, exec_id=exec_id)
    if code == "image_refused":
        return ImageRefused(message, exec_id=exec_id)
    if code == "stopped":
        return ServiceBusy(message, code=code, exec_id=exec_id)
    return InfraError(message, code=code, exec_id=exec_id)
