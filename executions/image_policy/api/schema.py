"""What the OpenAPI document says of images, prefetches and rules."""

from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers

from executions.api.schema import REPEATED, failure
from executions.idempotency.api.header import PARAMETER as IDEMPOTENCY_KEY
from executions.image_policy.api.serializers import (
    ImageListSerializer,
    PrefetchListSerializer,
    PrefetchRequestSerializer,
    PrefetchSerializer,
    RuleListSerializer,
    RuleRequestSerializer,
    RuleSerializer,
)

DIGEST = "sha256:" + "5b" * 32
MOMENT = "2030-01-01T12:00:00Z"
ADDRESS = "8d4c7c3e-5a0f-4d57-8f3e-0a5e9b8f6c11"

IMAGE = {
    "digest": DIGEST,
    "references": ["docker.io/library/python:3.12-slim"],
    "size": 130_000_000,
    "state": "here",
    "host": "worker1:5f0c7a1e",
    "first_seen": MOMENT,
    "last_used": MOMENT,
    "pulled_by": "alice",
    "rule": "official images",
}
PREFETCH = {
    "id": ADDRESS,
    "image": "python:3.12-slim",
    "state": "downloading",
    "digest": "",
    "bytes_done": 12_000_000,
    "bytes_total": 45_000_000,
    "layers_done": 1,
    "layers_total": 4,
    "error": "",
    "error_code": "",
    "host": "worker1:5f0c7a1e",
    "requested_by": "alice",
    "requested_at": MOMENT,
    "started_at": MOMENT,
    "finished_at": None,
}
ASKED_RULE = {
    "name": "official images",
    "priority": 10,
    "pattern": "docker.io/library/*",
    "action": "allow",
    "group": "students",
    "max_bytes": 2_000_000_000,
}
RULE = {"id": 7, "user": None, "platform": "", "created_at": MOMENT, **ASKED_RULE}


def _found(
    shape: type[serializers.BaseSerializer[Any]], description: str, example: object
) -> OpenApiResponse:
    return OpenApiResponse(
        shape, description=description, examples=[OpenApiExample("found", value=example)]
    )


def _refused(code: str, error: str, **more: Any) -> dict[str, Any]:
    return {"error": error, "code": code, **more}


FORBIDDEN = failure(
    "The user doesn't have the permission.",
    _refused("permission_denied", "You do not have permission to perform this action."),
)
ABSENT = failure("There is none.", _refused("not_found", "Not found."))
BODY = {
    413: failure(
        "The request's body is too large.",
        _refused("too_large", "The request's body must not exceed 1048576 bytes."),
    ),
    415: failure(
        "The body isn't declared as JSON.",
        _refused("unsupported_media_type", 'Unsupported media type "text/plain" in request.'),
    ),
}
GONE = OpenApiResponse(description="Done; there is nothing to say.")

list_images = extend_schema(
    operation_id="listImages",
    tags=["images"],
    summary="List the images of all hosts",
    description=(
        "What each host has, the one used last first, then what has been removed there: at most "
        "1000 rows. Needs the permission image_policy.view_cachedimage."
    ),
    responses={
        200: _found(ImageListSerializer, "The images.", {"images": [IMAGE]}),
        403: FORBIDDEN,
    },
)

list_prefetches = extend_schema(
    operation_id="listPrefetches",
    tags=["images"],
    summary="List prefetches, the newest first",
    description="At most 1000. Needs the permission image_policy.view_prefetch.",
    responses={
        200: _found(PrefetchListSerializer, "The prefetches.", {"prefetches": [PREFETCH]}),
        403: FORBIDDEN,
    },
)

create_prefetch = extend_schema(
    operation_id="prefetchImage",
    tags=["images"],
    summary="Bring an image in before it is needed",
    description=(
        "A worker of one host asks its registry for the image, also where it is here already, and "
        "pulls what is new. Rules for images hold. Needs the permission image_policy.add_prefetch."
    ),
    request=PrefetchRequestSerializer,
    examples=[OpenApiExample("python", value={"image": "python:3.12-slim"}, request_only=True)],
    parameters=[
        IDEMPOTENCY_KEY,
        OpenApiParameter(
            "Location",
            str,
            OpenApiParameter.HEADER,
            required=True,
            description="Where to ask how far it is.",
            response=["202"],
        ),
    ],
    responses={
        202: _found(PrefetchSerializer, "It is queued.", PREFETCH | {"state": "queued"}),
        400: failure(
            "The request can't be met as it stands.",
            _refused("invalid_image", "image: 'dir:/etc' is not an image reference: …"),
            _refused("parse_error", "The body must be a JSON object."),
        ),
        403: failure(
            "The user doesn't have the permission, or a rule says no.",
            _refused("permission_denied", "You do not have permission to perform this action."),
            _refused("image_refused", "image 'python:2' is refused by the rule 'no old python'"),
        ),
        503: failure(
            "Too many wait; try again after Retry-After seconds.",
            _refused("queue_full", "100 prefetches are waiting already"),
        ),
        **REPEATED,
        **BODY,
    },
)

retrieve_prefetch = extend_schema(
    operation_id="getPrefetch",
    tags=["images"],
    summary="How far a prefetch is",
    description=(
        "Bytes and layers that have come, of how many, and the state. Needs the permission "
        "image_policy.view_prefetch."
    ),
    responses={
        200: _found(PrefetchSerializer, "Where it is.", PREFETCH),
        403: FORBIDDEN,
        404: ABSENT,
    },
)

cancel_prefetch = extend_schema(
    operation_id="cancelPrefetch",
    tags=["images"],
    summary="Cancel a prefetch",
    description=(
        "It ends at once; its worker stops a moment later. Needs the permission "
        "image_policy.cancel_prefetch."
    ),
    responses={
        204: GONE,
        403: FORBIDDEN,
        404: ABSENT,
        409: failure(
            "It has ended already.",
            _refused("prefetch_ended", "the prefetch has ended already: done"),
        ),
    },
)

list_rules = extend_schema(
    operation_id="listImageRules",
    tags=["images"],
    summary="List the rules for images",
    description="In the order in which they are looked at. Needs image_policy.view_rule.",
    responses={
        200: _found(RuleListSerializer, "The rules.", {"rules": [RULE]}),
        403: FORBIDDEN,
    },
)

create_rule = extend_schema(
    operation_id="createImageRule",
    tags=["images"],
    summary="Make a rule for images",
    description=(
        "The first rule that matches user and image decides. It holds within five seconds. Needs "
        "the permission image_policy.add_rule."
    ),
    request=RuleRequestSerializer,
    examples=[OpenApiExample("official", value=ASKED_RULE, request_only=True)],
    parameters=[IDEMPOTENCY_KEY],
    responses={
        201: _found(RuleSerializer, "It is made.", RULE),
        400: failure(
            "The rule can't be as it stands.",
            _refused(
                "invalid",
                "group: There is no group of that name.",
                fields={"group": ["There is no group of that name."]},
            ),
        ),
        403: FORBIDDEN,
        **REPEATED,
        **BODY,
    },
)

delete_rule = extend_schema(
    operation_id="deleteImageRule",
    tags=["images"],
    summary="Delete a rule for images",
    description="It is forgotten within five seconds. Needs image_policy.delete_rule.",
    responses={204: GONE, 403: FORBIDDEN, 404: ABSENT},
)
