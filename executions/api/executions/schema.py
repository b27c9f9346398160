"""What the OpenAPI document says of the routes below /api/v1/executions/."""

from collections.abc import Callable
from typing import Any, TypeVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema

from executions.api.executions.serializers import (
    ExecutionPageSerializer,
    ExecutionRequestSerializer,
    ExecutionSerializer,
    LeftFilesSerializer,
)
from executions.api.schema import (
    EXEC_ID,
    IDEMPOTENCY_GONE,
    QUOTA_EXCEEDED,
    REPEATED,
    REQUEST_EXAMPLE,
    error_example,
    failure,
)
from executions.idempotency.api.header import PARAMETER as IDEMPOTENCY_KEY
from executions.models import Outcome, Status

F = TypeVar("F", bound=Callable[..., Any])

EXAMPLE: dict[str, Any] = {
    "exec_id": EXEC_ID,
    "owner": "anonymous",
    "status": "finished",
    "outcome": "exited",
    "exit_code": 0,
    "signal": None,
    "error": "",
    "error_code": "",
    "image": "python:3.12-slim",
    "image_digest": "sha256:" + "5b" * 32,
    "cmd": ["python3", "-c", "print(1)"],
    "env": [],
    "cwd": "/",
    "files": [],
    "network": "none",
    "persist": False,
    "outputs": ["*"],
    "limits": {
        "cpu_cores": 1.0,
        "memory_mb": 256,
        "pids_limit": 64,
        "wall_clock_secs": 30,
        "nofile": 256,
    },
    "labels": {"branch": "main"},
    "priority": 0,
    "callback_url": "",
    "rerun_of": None,
    "created_at": "2026-11-28T12:00:00Z",
    "expires_at": None,
    "cancel_requested_at": None,
    "started_at": "2026-11-28T12:00:00.1Z",
    "finished_at": "2026-11-28T12:00:00.2Z",
    "queue_ms": 2,
    "pull_ms": 0,
    "start_ms": 4,
    "wall_ms": 74,
    "cpu_ms": 51,
    "max_memory_bytes": 9437184,
    "warm": True,
    "left_out": [],
}
WAITING = EXAMPLE | {
    "status": "queued",
    "outcome": "",
    "exit_code": None,
    "image_digest": "",
    "started_at": None,
    "finished_at": None,
    "queue_ms": None,
    "pull_ms": None,
    "start_ms": None,
    "wall_ms": None,
    "cpu_ms": None,
    "max_memory_bytes": None,
    "warm": False,
}
ID = OpenApiParameter("exec_id", OpenApiTypes.STR, OpenApiParameter.PATH)
LOCATION = OpenApiParameter(
    "Location", OpenApiTypes.STR, OpenApiParameter.HEADER, response=[202], description="Its route."
)
MISSING = failure(
    "There is no such execution, or it is somebody else's.",
    error_example("not_found", f"there is no execution '{EXEC_ID}'"),
)
INVALID = failure(
    "A parameter isn't what it must be.",
    error_example(
        "invalid", "limit: Must be from 1 to 200.", fields={"limit": ["Must be from 1 to 200."]}
    ),
)
FORBIDDEN = failure(
    "It may be seen, but it is somebody else's.",
    error_example("permission_denied", "You do not have permission to perform this action."),
)
BUSY = failure(
    "Nothing was accepted; try again after Retry-After seconds.",
    error_example("queue_full", "1000 runs are waiting already"),
    error_example("no_worker", "no worker is alive to run it"),
)
REFUSED = failure(
    "A rule refuses the image.",
    error_example("image_refused", "image 'busybox' is refused by the rule 'none'"),
    error_example("permission_denied", "You do not have permission to perform this action."),
)
TOO_LARGE = failure(
    "The request's body is too large.",
    error_example("too_large", "The request body is larger than 1048576 bytes."),
)
NOT_JSON = failure(
    "The body isn't declared as JSON.",
    error_example("unsupported_media_type", 'Unsupported media type "text/plain" in request.'),
)
BAD_BODY = failure(
    "The request can't be run as it stands.",
    error_example("invalid", "cmd: Must not be empty.", fields={"cmd": ["Must not be empty."]}),
    error_example("parse_error", "The body must be a JSON object."),
    error_example("file_not_found", "no such file: a.txt", fields={"files": ["a.txt"]}),
)


def _told(description: str, example: dict[str, Any]) -> OpenApiResponse:
    return OpenApiResponse(
        ExecutionSerializer,
        description=description,
        examples=[OpenApiExample("execution", value=example)],
    )


def _query(name: str, description: str, **more: Any) -> OpenApiParameter:
    kind = more.pop("type", OpenApiTypes.STR)
    return OpenApiParameter(name, kind, OpenApiParameter.QUERY, description=description, **more)


def _whole(minimum: int, maximum: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": minimum, "maximum": maximum}


create = extend_schema(
    operation_id="create_execution",
    tags=["execution"],
    summary="Submit a run and don't wait for it",
    description="Takes what POST /run takes and more; answers as soon as the run is queued.",
    parameters=[LOCATION, IDEMPOTENCY_KEY],
    request=ExecutionRequestSerializer,
    examples=[OpenApiExample("script", value=REQUEST_EXAMPLE, request_only=True)],
    responses={
        202: _told("It is queued.", WAITING),
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
    operation_id="list_executions",
    tags=["execution"],
    summary="List executions, newest first",
    description=(
        "With filters, a page looks at the newest 10,000 executions before `cursor` and may be "
        "short or empty; `next` goes on from there until it is null."
    ),
    parameters=[
        _query("cursor", "`next` of the page before."),
        _query("limit", "Executions of a page; 50 by default.", type=_whole(1, 200)),
        _query("status", "Where they are.", enum=Status.values),
        _query("outcome", "What became of the program.", enum=Outcome.values),
        _query("image", "As it was requested."),
        _query("label", "name=value; may be given several times.", many=True),
        _query("created_after", "", type=OpenApiTypes.DATETIME),
        _query("created_before", "", type=OpenApiTypes.DATETIME),
        _query("owner", "A user's name, for those who see everybody's."),
        _query("command", "Text in the command."),
    ],
    responses={
        200: OpenApiResponse(
            ExecutionPageSerializer,
            description="A page.",
            examples=[OpenApiExample("page", value={"results": [EXAMPLE], "next": None})],
        ),
        400: INVALID,
    },
)

detail = extend_schema(
    operation_id="get_execution",
    tags=["execution"],
    summary="An execution as it stands",
    description="With `wait` the answer comes when it has ended, or after so many seconds.",
    parameters=[ID, _query("wait", "Seconds.", type=_whole(0, 30))],
    responses={200: _told("As it stands.", EXAMPLE), 400: INVALID, 404: MISSING},
)

cancel = extend_schema(
    operation_id="cancel_execution",
    tags=["execution"],
    summary="Cancel a run",
    description=(
        "One that waits never starts; one that runs is killed within a second, and what it has "
        "printed is kept. May be repeated until it has ended."
    ),
    parameters=[ID],
    request=None,
    responses={
        202: _told("It is cancelled, or will be at once.", WAITING | {"status": "cancelled"}),
        403: FORBIDDEN,
        404: MISSING,
        409: failure(
            "It has ended.",
            error_example("has_ended", "the run has ended already", exec_id=EXEC_ID),
        ),
    },
)

delete = extend_schema(
    operation_id="delete_execution",
    tags=["execution"],
    summary="Remove an ended execution",
    description="With its output, its inputs and the files that it left in /output.",
    parameters=[ID],
    responses={
        204: OpenApiResponse(description="It is gone."),
        403: FORBIDDEN,
        404: MISSING,
        409: failure(
            "It hasn't ended.",
            error_example("not_ended", "the run hasn't ended; cancel it first", exec_id=EXEC_ID),
        ),
    },
)

rerun = extend_schema(
    operation_id="rerun_execution",
    tags=["execution"],
    summary="Run the same again",
    description="On the digest that ran, with the same inputs where they were kept.",
    parameters=[ID, LOCATION, IDEMPOTENCY_KEY],
    request=None,
    responses={
        202: _told("The new execution is queued.", WAITING | {"rerun_of": EXEC_ID}),
        400: BAD_BODY,
        403: REFUSED,
        404: MISSING,
        **REPEATED,
        409: failure(
            "Its input files or secrets weren't kept, or what was made with the key is gone.",
            error_example("inputs_gone", "the run's input files weren't kept: a.txt"),
            IDEMPOTENCY_GONE,
        ),
        429: QUOTA_EXCEEDED,
        503: BUSY,
    },
)

_RANGE = OpenApiParameter("Range", OpenApiTypes.STR, OpenApiParameter.HEADER)


def _bytes(name: str) -> OpenApiResponse:
    example = OpenApiExample(name, value="hello world\n", media_type="application/octet-stream")
    return OpenApiResponse(OpenApiTypes.BINARY, description="The bytes.", examples=[example])


def _output(name: str) -> Callable[[F], F]:
    return extend_schema(
        operation_id=f"get_{name}",
        tags=["execution"],
        summary=f"What the program wrote to {name}",
        description="As bytes; of a run that goes on, what it has printed so far.",
        parameters=[ID, _RANGE],
        responses={
            (200, "application/octet-stream"): _bytes(name),
            (206, "application/octet-stream"): _bytes(name),
            404: MISSING,
            416: failure(
                "The range lies outside of it.",
                error_example("range_not_satisfiable", f"Range: {name} has 12 bytes"),
            ),
        },
    )


stdout, stderr = _output("stdout"), _output("stderr")

EVENTS = (
    'id: 0\nevent: status\ndata: {"status": "running"}\n\n'
    'id: 6\nevent: stdout\ndata: {"base64": "aGVsbG8K"}\n\n'
    'event: usage\ndata: {"cpu_ms": 12, "memory_bytes": 4194304}\n\n'
)
events = extend_schema(
    operation_id="watch_execution",
    tags=["execution"],
    summary="Watch a run",
    description=(
        "Server-sent events: `status`; `stdout` and `stderr` (base64) in the order in which they "
        "were read; `usage` once a second; `end` with the execution. An id counts the bytes of "
        "both streams until there: `Last-Event-ID` goes on without a gap, also after the end."
    ),
    parameters=[
        ID,
        OpenApiParameter("Last-Event-ID", _whole(0, 10**15 - 1), OpenApiParameter.HEADER),
    ],
    responses={
        (200, "text/event-stream"): OpenApiResponse(
            OpenApiTypes.STR,
            description="Events, until the run has ended.",
            examples=[OpenApiExample("events", value=EVENTS, media_type="text/event-stream")],
        ),
        400: INVALID,
        404: MISSING,
    },
)

_FILES = {"files": [{"path": "result.txt", "size": 12, "sha256": "a9" * 32}]}
files = extend_schema(
    operation_id="list_execution_files",
    tags=["execution"],
    summary="What the program left in /output",
    description="Those files that were kept.",
    parameters=[ID],
    responses={
        200: OpenApiResponse(
            LeftFilesSerializer,
            description="The files.",
            examples=[OpenApiExample("files", value=_FILES)],
        ),
        404: MISSING,
    },
)
file = extend_schema(
    operation_id="get_execution_file",
    tags=["execution"],
    summary="One file that the program left",
    description="As bytes.",
    parameters=[ID, OpenApiParameter("path", OpenApiTypes.STR, OpenApiParameter.PATH), _RANGE],
    responses={
        (200, "application/octet-stream"): _bytes("file"),
        (206, "application/octet-stream"): _bytes("file"),
        304: OpenApiResponse(description="The client has these contents (If-None-Match)."),
        404: MISSING,
        416: failure(
            "The range lies outside of it.",
            error_example("range_not_satisfiable", "Range: the file has 12 bytes"),
        ),
    },
)
archive = extend_schema(
    operation_id="get_execution_archive",
    tags=["execution"],
    summary="All files that the program left, as a zip",
    description="Written while it is sent; nothing is compressed.",
    parameters=[ID],
    responses={
        (200, "application/zip"): OpenApiResponse(
            OpenApiTypes.BINARY,
            description="The archive.",
            examples=[OpenApiExample("zip", value="PK…", media_type="application/zip")],
        ),
        404: MISSING,
    },
)
