"""What the OpenAPI document says of the routes of executions: shapes, statuses, examples."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension, OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import Direction, OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import serializers

from executions.api.fields import PATTERN
from executions.api.serializers import (
    ChecksSerializer,
    HealthSerializer,
    ReadinessSerializer,
    RunRequestSerializer,
    RunResponseSerializer,
)
from executions.idempotency.api import header as idempotency
from filestore.api.error_shape import ErrorSerializer

EXEC_ID = "boxer-5f0c7a1e9b3d4c6f8a21"


class ClosedSchema(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]
    """Unknown keys are refused, and the document says so."""

    target_class = "executions.api.fields.ClosedSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(  # type: ignore[no-untyped-call]  # noqa: SLF001
            self.target, direction, bypass_extensions=True
        )
        return schema | {"additionalProperties": False}


class TextSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = "executions.api.fields.TextField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:  # noqa: ARG002
        field = self.target
        pattern = {"pattern": field.pattern} if field.pattern else {}
        return {"type": "string", "maxLength": field.max_bytes, **pattern}


class TextListSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = "executions.api.fields.TextListField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:  # noqa: ARG002
        field = self.target
        return {
            "type": "array",
            "items": {"type": "string", "pattern": field.pattern},
            "minItems": field.min_items,
            "maxItems": field.max_items,
        }


class FlagSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = "executions.api.fields.FlagField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:  # noqa: ARG002
        return {"type": "boolean"}


class LimitSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = "executions.api.fields.LimitField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:  # noqa: ARG002
        field = self.target
        kind = "integer" if field.whole else "number"
        return {"type": kind, "minimum": 0, "maximum": field.maximum}


class WholeSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = "executions.api.fields.WholeField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:  # noqa: ARG002
        field = self.target
        return {"type": "integer", "minimum": field.minimum, "maximum": field.maximum}


class LabelsSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    target_class = "executions.api.fields.LabelsField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:  # noqa: ARG002
        field = self.target
        value = {"type": "string", "maxLength": field.most_bytes, "pattern": PATTERN}
        return {
            "type": "object",
            "additionalProperties": value,
            "maxProperties": field.most,
        }


class StoppedSerializer(ErrorSerializer):
    """An error of a program that Boxer stopped, with what it had printed until then."""

    stdout = serializers.CharField()
    stderr = serializers.CharField()


class ExceededSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    limit = serializers.IntegerField()
    used = serializers.FloatField()
    frees_at = serializers.DateTimeField(allow_null=True)


class QuotaExceededSerializer(ErrorSerializer):
    quota = ExceededSerializer()


class NotReadySerializer(ErrorSerializer):
    checks = ChecksSerializer()


def failure(
    description: str,
    *examples: dict[str, Any],
    shape: type[serializers.Serializer[Any]] = ErrorSerializer,
) -> OpenApiResponse:
    """A response that isn't 2xx; each example is named by its code."""
    named = [OpenApiExample(example["code"], value=example) for example in examples]
    return OpenApiResponse(shape, description=description, examples=named)


def error_example(code: str, error: str, **more: Any) -> dict[str, Any]:
    return {"error": error, "code": code, **more}


REQUEST_EXAMPLE = {
    "image": "python:3.12-slim",
    "cmd": ["python3", "/workspace/script.py"],
    "env": ["GREETING=hello world"],
    "cwd": "/",
    "files": ["workspace/script.py"],
    "limits": {
        "cpu_cores": 1.0,
        "memory_mb": 256,
        "pids_limit": 64,
        "wall_clock_secs": 30,
        "nofile": 256,
    },
    "network": "none",
    "persist": True,
}

RESPONSE_EXAMPLE = {
    "exec_id": EXEC_ID,
    "exit_code": 0,
    "stdout": "hello world\n",
    "stderr": "",
    "wall_ms": 74,
    "status": "finished",
    "outcome": "exited",
    "signal": None,
    "cpu_ms": 51,
    "max_memory_bytes": 9437184,
    "image_digest": "sha256:" + "5b" * 32,
    "queue_ms": 2,
    "pull_ms": 0,
    "start_ms": 168,
}

QUOTA_EXCEEDED = failure(
    "A quota is used up; try again after Retry-After seconds.",
    {
        "error": "your quota runs_an_hour is used up: 3 of 3",
        "code": "quota_exceeded",
        "quota": {
            "name": "runs_an_hour",
            "limit": 3,
            "used": 3,
            "frees_at": "2026-01-01T13:00:00+00:00",
        },
    },
    shape=QuotaExceededSerializer,
)

IDEMPOTENCY_GONE = error_example(
    "idempotency_gone", "what the first request with this Idempotency-Key made was removed"
)
REPEATED = {
    409: failure("What the first request with this key made is gone.", IDEMPOTENCY_GONE),
    422: failure(
        "The Idempotency-Key was used for another request.",
        error_example("idempotency_mismatch", "this Idempotency-Key was used for another request"),
    ),
}
"""What a route that looks at the header Idempotency-Key can answer besides."""

run = extend_schema(
    operation_id="run",
    tags=["execution"],
    summary="Execute a command in a sandboxed container",
    description=(
        "Pulls the image if it isn't cached, and runs the command in a gVisor sandbox of its own. "
        "`files` must be uploaded first with POST /files; each appears read-only at `/{path}`. "
        "What the program leaves in `/output/` is stored under `output/{exec_id}/` when `persist` "
        "is true. Answers when the program has ended, in whichever way it did."
    ),
    parameters=[idempotency.PARAMETER],
    request=RunRequestSerializer,
    examples=[OpenApiExample("script", value=REQUEST_EXAMPLE, request_only=True)],
    responses={
        200: OpenApiResponse(
            RunResponseSerializer,
            description="The program ended: by itself, by a signal, or for want of memory.",
            examples=[OpenApiExample("hello", value=RESPONSE_EXAMPLE)],
        ),
        400: failure(
            "The request can't be run as it stands.",
            error_example(
                "invalid",
                "limits.memory_mb: Must be at most 4096.",
                fields={"limits.memory_mb": ["Must be at most 4096."]},
            ),
            error_example("parse_error", "The body must be a JSON object."),
            error_example(
                "file_not_found",
                "no such file: workspace/script.py",
                fields={"files": ["workspace/script.py"]},
            ),
            error_example(
                "image_not_found", "the registry has no python:3.12-slimm here", exec_id=EXEC_ID
            ),
        ),
        403: failure(
            "A quota, a permission or a rule says no.",
            {"error": "your quota doesn't allow the network 'host'", "code": "quota_forbids"},
            {"error": "you may not use the network 'host'", "code": "host_network_forbidden"},
        ),
        408: failure(
            "The wall clock limit passed; the program was killed.",
            error_example(
                "timed_out",
                "wall clock limit of 2 s exceeded",
                exec_id=EXEC_ID,
                stdout="started\n",
                stderr="",
            ),
            shape=StoppedSerializer,
        ),
        **REPEATED,
        413: failure(
            "The request's body is too large.",
            error_example("too_large", "The request body is larger than 1048576 bytes."),
        ),
        415: failure(
            "The body isn't declared as JSON.",
            error_example(
                "unsupported_media_type", 'Unsupported media type "text/plain" in request.'
            ),
        ),
        429: QUOTA_EXCEEDED,
        500: failure(
            "Boxer or the registry failed, not the program.",
            error_example("infra_error", "the sandbox could not be started", exec_id=EXEC_ID),
            error_example("pull_failed", "the registry refused the connection", exec_id=EXEC_ID),
        ),
        503: failure(
            "Nothing runs; try again after Retry-After seconds.",
            error_example("queue_full", "1000 runs are waiting already"),
            error_example("no_worker", "no worker is alive to run it"),
            error_example("queue_timeout", "no worker was free within 300 s", exec_id=EXEC_ID),
            error_example("cancelled", "the run was cancelled", exec_id=EXEC_ID),
        ),
        507: failure(
            "The program printed more than the output limit; it was killed.",
            error_example(
                "output_limit",
                "the program printed more than the output limit allows",
                exec_id=EXEC_ID,
                stdout="y\ny\ny\n",
                stderr="",
            ),
            shape=StoppedSerializer,
        ),
    },
)

health = extend_schema(
    operation_id="health",
    tags=["system"],
    summary="Health check",
    description="Answers as long as the process serves requests; asks nothing else.",
    responses={
        200: OpenApiResponse(
            HealthSerializer,
            description="It serves.",
            examples=[OpenApiExample("ok", value={"ok": True})],
        )
    },
)

_CHECKS = {"database": "ok", "queue": "ok", "cluster": "ok", "runsc": "ok"}
_ILL = _CHECKS | {"cluster": "no worker host is alive", "runsc": "no live worker host has found it"}

readiness = extend_schema(
    operation_id="readiness",
    tags=["system"],
    summary="Readiness check",
    description="Whether a run would find its database, queue, worker and runsc.",
    responses={
        200: OpenApiResponse(
            ReadinessSerializer,
            description="Runs can be served.",
            examples=[OpenApiExample("ok", value={"ok": True, "checks": _CHECKS})],
        ),
        503: failure(
            "Something is ill; `checks` says what.",
            error_example("not_ready", "not ready: cluster, runsc", checks=_ILL),
            shape=NotReadySerializer,
        ),
    },
)
