"""What the OpenAPI document says of the routes below /api/v1/batches/."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema

from executions.api.executions.schema import (
    BAD_BODY,
    BUSY,
    FORBIDDEN,
    INVALID,
    LOCATION,
    NOT_JSON,
    REFUSED,
    TOO_LARGE,
)
from executions.api.schema import EXEC_ID, QUOTA_EXCEEDED, REPEATED, error_example, failure
from executions.batches.api.serializers import (
    BatchPageSerializer,
    BatchRequestSerializer,
    BatchResultSerializer,
    BatchSerializer,
)
from executions.idempotency.api.header import PARAMETER as IDEMPOTENCY_KEY

BATCH_ID = "batch-5f0c7a1e9b3d4c6f8a21"
EXAMPLE: dict[str, Any] = {
    "batch_id": BATCH_ID,
    "owner": "anonymous",
    "created_at": "2026-11-28T12:00:00Z",
    "phase": "queued",
    "error": "",
    "entrypoint": EXEC_ID,
    "ended": False,
    "total": 2,
    "statuses": {"finished": 1, "running": 1},
    "outcomes": {"exited": 1},
    "verdicts": {"passed": 1},
}
REQUEST = {
    "template": {"image": "gcc:14", "cmd": ["/build/sum"]},
    "entrypoint": {"cmd": ["gcc", "-o", "/output/sum", "/sum.c"], "files": ["sum.c"]},
    "runs": [
        {"stdin": "1 2\n", "expected_stdout": "3\n"},
        {"args": ["-v"], "stdin": "2 2\n", "expected_stdout": "4", "compare": "trim"},
    ],
}
RESULT = {
    "number": 0,
    "exec_id": EXEC_ID,
    "status": "finished",
    "outcome": "exited",
    "exit_code": 0,
    "signal": None,
    "wall_ms": 12,
    "cpu_ms": 9,
    "max_memory_bytes": 4194304,
    "error": "",
    "stdout": "3\n",
    "stderr": "",
    "verdict": "passed",
    "remark": "",
}
ID = OpenApiParameter("batch_id", OpenApiTypes.STR, OpenApiParameter.PATH)
MISSING = failure(
    "There is no such batch, or it is somebody else's.",
    error_example("not_found", f"there is no batch '{BATCH_ID}'"),
)


def _told(description: str) -> OpenApiResponse:
    return OpenApiResponse(
        BatchSerializer,
        description=description,
        examples=[OpenApiExample("batch", value=EXAMPLE)],
    )


create = extend_schema(
    operation_id="create_batch",
    tags=["execution"],
    summary="Submit many runs at once",
    description=(
        "Each run is the template with what it changes. All are queued, or none. With an "
        "`entrypoint`, that runs first (with the template's `image` and `limits` unless it has "
        "its own); "
        "what it leaves in /output is below `build_dir` for the others, read-only and executable."
    ),
    parameters=[LOCATION, IDEMPOTENCY_KEY],
    request=BatchRequestSerializer,
    examples=[OpenApiExample("cases", value=REQUEST, request_only=True)],
    responses={
        202: _told("It is queued."),
        400: BAD_BODY,
        403: REFUSED,
        **REPEATED,
        413: TOO_LARGE,
        415: NOT_JSON,
        429: QUOTA_EXCEEDED,
        503: BUSY,
    },
)
listing = extend_schema(
    operation_id="list_batches",
    tags=["execution"],
    summary="List batches, newest first",
    description="Fifty a page.",
    parameters=[OpenApiParameter("cursor", str, description="`next` of the page before.")],
    responses={
        200: OpenApiResponse(
            BatchPageSerializer,
            description="A page.",
            examples=[OpenApiExample("page", value={"results": [EXAMPLE], "next": None})],
        ),
        400: INVALID,
    },
)
detail = extend_schema(
    operation_id="get_batch",
    tags=["execution"],
    summary="How far a batch is",
    description="How many of its runs are where, how they ended, and what the verdicts are.",
    parameters=[ID],
    responses={200: _told("As it stands."), 404: MISSING},
)
cancel = extend_schema(
    operation_id="cancel_batch",
    tags=["execution"],
    summary="Cancel a batch",
    description="All of its runs that haven't ended, and the entrypoint.",
    parameters=[ID],
    request=None,
    responses={
        202: _told("They are cancelled, or will be at once."),
        403: FORBIDDEN,
        404: MISSING,
        409: failure("It has ended.", error_example("has_ended", "the batch has ended already")),
    },
)
results = extend_schema(
    operation_id="get_batch_results",
    tags=["execution"],
    summary="The results of a batch",
    description="A JSON object a line, in the order in which the runs ended, until all have.",
    parameters=[
        ID,
        OpenApiParameter(
            "wait",
            {"type": "integer", "minimum": 0, "maximum": 3600},
            description="Seconds after which no more are waited for.",
        ),
    ],
    responses={
        (200, "application/jsonl"): OpenApiResponse(
            BatchResultSerializer,
            description="Lines, each of this shape.",
            examples=[OpenApiExample("line", value=RESULT, media_type="application/jsonl")],
        ),
        400: INVALID,
        404: MISSING,
    },
)
