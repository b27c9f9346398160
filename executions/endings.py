"""How what the sandbox tells of a run's end is written down."""

from executions.models import Outcome
from executions.sandbox.spec import End, RunResult
from executions.services import Ending

_OUTCOMES = {
    End.EXITED: Outcome.EXITED,
    End.SIGNALLED: Outcome.SIGNALLED,
    End.TIMED_OUT: Outcome.TIMED_OUT,
    End.OUT_OF_MEMORY: Outcome.OUT_OF_MEMORY,
    End.OUTPUT_LIMIT: Outcome.OUTPUT_LIMIT,
    End.BROKEN: Outcome.INFRA_ERROR,
    End.INTERRUPTED: Outcome.INFRA_ERROR,
}


def ending_of(result: RunResult, left_out: list[dict[str, str]]) -> Ending:
    traffic = result.traffic
    error, code = "", ""
    if result.end is End.BROKEN:
        error, code = result.detail, "infra_error"
    elif result.end is End.INTERRUPTED:
        error, code = "the service was stopped while it ran", "stopped"
    return Ending(
        outcome=_OUTCOMES[result.end],
        exit_code=result.exit_code,
        signal=result.signal,
        stdout=result.stdout,
        stderr=result.stderr,
        turns=result.order,
        wall_ms=result.wall_ms,
        cpu_ms=result.cpu_ms,
        max_memory_bytes=result.max_memory_bytes,
        net_sent_bytes=traffic.sent_bytes if traffic else None,
        net_received_bytes=traffic.received_bytes if traffic else None,
        net_refused=traffic.refused if traffic else None,
        error=error,
        error_code=code,
        left_out=left_out,
    )


def failed(error: str, code: str) -> Ending:
    return Ending(outcome=Outcome.INFRA_ERROR, error=error, error_code=code)
