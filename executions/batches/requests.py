"""What is asked of a batch, and how its cases wait in the database until they are queued."""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from executions.batches.models import Compare
from executions.sandbox.spec import Limits
from executions.sealed import services as sealed
from executions.submission import RunRequest

MOST_RUNS = 500


@dataclass(frozen=True, slots=True)
class CaseRequest:
    run: RunRequest
    expected: str | None = None
    compare: str = Compare.EXACT


@dataclass(frozen=True, slots=True)
class BatchRequest:
    batch_id: str
    cases: Sequence[CaseRequest]
    entrypoint: RunRequest | None = None
    build_dir: str = "build"
    """Clean and relative, as the paths of files are."""


def packed(run: RunRequest) -> bytes:
    """Encrypted: its environment and its standard input may hold secrets."""
    values = asdict(run) | {"stdin": base64.b64encode(run.stdin).decode()}
    return sealed.sealed_text(json.dumps(values))


def unpacked(data: bytes) -> RunRequest:
    """Raises SealBroken."""
    values: dict[str, Any] = json.loads(sealed.opened_text(data))
    values["stdin"] = base64.b64decode(values["stdin"])
    values["limits"] = Limits(**values["limits"])
    for field in fields(RunRequest):
        if isinstance(values[field.name], list):
            values[field.name] = tuple(values[field.name])
    return RunRequest(**values)
