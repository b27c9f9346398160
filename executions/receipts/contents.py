"""What a receipt says of an execution: enough to run exactly that again, and to see what came."""

import base64
import hashlib
from datetime import datetime
from typing import Any

from django.db import connection

from executions.errors import InfraError, NotEnded
from executions.models import UNFINISHED, Execution, ExecutionStdin
from executions.sandbox.references import BadReference, parse
from filestore.models import StoredFile

FORMAT = "boxer-receipt/1"

_LIMITS = ("cpu_cores", "memory_mb", "pids_limit", "wall_clock_secs", "nofile")
_END = ("status", "outcome", "exit_code", "signal", "error", "error_code")
_USAGE = (
    "queue_ms", "pull_ms", "start_ms", "warm", "wall_ms", "cpu_ms", "max_memory_bytes",
    "net_sent_bytes", "net_received_bytes", "net_refused",
)  # fmt: skip
_TIMES = ("created_at", "claimed_at", "started_at", "finished_at")

# Hashed where the bytes lie: they may be hundreds of MiB.
_PRINTED = """
    SELECT encode(sha256(stdout), 'hex'), octet_length(stdout),
           encode(sha256(stderr), 'hex'), octet_length(stderr)
    FROM executions_executionoutput WHERE execution_id = %s
"""
_ALL = ["*"]
_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""sha256 of no bytes: what one that never ran has printed."""


def of_execution(execution: Execution) -> dict[str, Any]:
    """Plain JSON values. Raises NotEnded while it runs."""
    if execution.status in UNFINISHED:
        raise NotEnded(
            f"the execution is {execution.status}; it has a receipt when it has ended",
            exec_id=execution.exec_id,
        )
    stdin = _stdin(execution)
    return {
        "format": FORMAT,
        "exec_id": execution.exec_id,
        "image": {"requested": execution.image, "digest": execution.image_digest},
        "runtime": {"runsc_version": execution.runsc_version, "platform": execution.platform},
        "cmd": list(execution.cmd),
        "env": list(execution.env),
        "cwd": execution.cwd,
        "network": execution.network,
        "labels": dict(execution.labels),
        "limits": _limits(execution),
        "inputs": [
            {"path": row.path, "sha256": row.sha256, "size": row.size}
            for row in execution.inputs.order_by("path", "pk")
        ],
        "stdin": _hashed(stdin) if stdin is not None else None,
        **_printed(execution),
        "outputs": _outputs(execution),
        "left_out": list(execution.left_out),
        "end": {name: getattr(execution, name) for name in _END},
        "usage": {name: getattr(execution, name) for name in _USAGE},
        "times": {name: _moment(getattr(execution, name)) for name in _TIMES},
        "request": _request(execution, stdin),
    }


def _limits(execution: Execution) -> dict[str, int | float]:
    limits = {name: getattr(execution, name) for name in _LIMITS}
    # 1.0 and 1 are the same number and not the same text.
    return {
        name: int(value) if float(value).is_integer() else value for name, value in limits.items()
    }


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None


def _stdin(execution: Execution) -> bytes | None:
    found = ExecutionStdin.objects.filter(pk=execution.pk).values_list("data", flat=True).first()
    return None if found is None else bytes(found)


def _hashed(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def _printed(execution: Execution) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(_PRINTED, [execution.pk])
        out, out_size, err, err_size = cursor.fetchone() or (_NOTHING, 0, _NOTHING, 0)
    return {
        "stdout": {"sha256": out, "size": out_size},
        "stderr": {"sha256": err, "size": err_size},
    }


def _outputs(execution: Execution) -> list[dict[str, Any]]:
    """What it left and is still there, by its path below /output."""
    if not execution.persist and execution.outputs is None:
        return []
    base = f"output/{execution.exec_id}/"
    files = StoredFile.objects.filter(owner_id=execution.owner_id).left_by_run(base)
    return [
        {"path": path.removeprefix(base), "sha256": sha256, "size": size}
        for path, sha256, size in sorted(files.values_list("path", "blob__sha256", "blob__size"))
    ]


def _request(execution: Execution, stdin: bytes | None) -> dict[str, Any]:
    """A body for POST /api/v1/executions/, and without `outputs` for POST /run: the same again.

    A masked variable stands as `NAME=***`: whoever repeats it puts the secret in.
    """
    request: dict[str, Any] = {
        "image": _pinned(execution),
        "cmd": list(execution.cmd),
        "env": list(execution.env),
        "cwd": execution.cwd,
        "files": list(execution.files),
        "limits": _limits(execution),
        "network": execution.network,
        "persist": execution.persist,
    }
    if execution.outputs not in (None, _ALL):
        request["outputs"] = list(execution.outputs)
    if stdin is not None:
        request |= {"stdin": base64.b64encode(stdin).decode(), "stdin_encoding": "base64"}
    if execution.labels:
        request["labels"] = dict(execution.labels)
    return request


def _pinned(execution: Execution) -> str:
    """One that never got its image has no digest: then the name means what it means."""
    if not execution.image_digest:
        return execution.image
    try:
        return f"{parse(execution.image).name}@{execution.image_digest}"
    except BadReference as error:
        raise InfraError(str(error), exec_id=execution.exec_id) from None
