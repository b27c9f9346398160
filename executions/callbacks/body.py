"""What a callback tells of an execution that has ended."""

import json
from typing import Any

from executions.models import Execution

ENDED = "execution.ended"

_AS_THEY_ARE = (
    "exec_id", "status", "outcome", "exit_code", "signal", "error", "error_code", "image",
    "image_digest", "labels", "queue_ms", "pull_ms", "start_ms", "wall_ms", "cpu_ms",
    "max_memory_bytes",
)  # fmt: skip
_TIMES = ("created_at", "started_at", "finished_at")


def of_execution(execution: Execution) -> str:
    """JSON; the addresses in `urls` are relative to Boxer's own. What was printed isn't in it."""
    told: dict[str, Any] = {"event": ENDED}
    told |= {name: getattr(execution, name) for name in _AS_THEY_ARE}
    for name in _TIMES:
        moment = getattr(execution, name)
        told[name] = moment.isoformat().replace("+00:00", "Z") if moment else None
    base = f"/api/v1/executions/{execution.exec_id}/"
    told["urls"] = {
        "execution": base,
        "stdout": f"{base}stdout/",
        "stderr": f"{base}stderr/",
        "files": f"{base}files/",
        "callbacks": f"{base}callbacks/",
        "receipt": f"{base}receipt/",
    }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))
