"""What a run's end means here: the client's exit code, and words where a code isn't enough."""

from dataclasses import dataclass
from typing import Any

from cli.errors import CANCELLED, FAILED, OUTPUT_LIMIT, TIMED_OUT


@dataclass(frozen=True, slots=True)
class Ending:
    code: int
    message: str = ""


def ending(execution: dict[str, Any]) -> Ending:
    """Of an execution that has ended; without keys it was removed while it was watched."""
    limits, error = execution.get("limits") or {}, execution.get("error") or ""
    match execution.get("status"), execution.get("outcome"):
        case "cancelled", _:
            return Ending(CANCELLED, f"cancelled: {error}" if error else "cancelled")
        case _, "exited" | "signalled":
            return Ending(_program_code(execution))
        case _, "out_of_memory":
            message = f"out of memory (memory_mb is {limits.get('memory_mb')})"
            return Ending(_program_code(execution) or FAILED, message)
        case _, "timed_out":
            secs = limits.get("wall_clock_secs")
            return Ending(TIMED_OUT, f"stopped after {secs} s (wall_clock_secs)")
        case _, "output_limit":
            return Ending(OUTPUT_LIMIT, error or "stopped: it printed more than is allowed")
        case _, "infra_error":
            return Ending(FAILED, f"Boxer failed: {error}")
    return Ending(FAILED, "the execution is gone: it was removed")


def _program_code(execution: dict[str, Any]) -> int:
    code, signum = execution.get("exit_code"), execution.get("signal")
    if code is None:
        return FAILED if signum is None else 128 + int(signum)
    return int(code)
