"""What the OpenAPI document says of callbacks."""

from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema

from executions.api.schema import failure
from executions.callbacks.api.serializers import CallbackListSerializer, CallbackSecretSerializer

ABSENT = failure("There is none.", {"error": "Not found.", "code": "not_found"})
BROKEN = failure(
    "Boxer is at fault, or its key was changed.",
    {
        "error": "the secret of callbacks can't be opened: is BOXER_SECRET_KEY the same?",
        "code": "seal_broken",
    },
)
DELIVERY: dict[str, Any] = {
    "id": "8d4c7c3e-5a0f-4d57-8f3e-0a5e9b8f6c11",
    "event": "execution.ended",
    "url": "https://ci.example.org/boxer",
    "state": "delivered",
    "created_at": "2030-01-01T12:00:00Z",
    "due_at": None,
    "give_up_at": "2030-01-02T12:00:00Z",
    "tries": [
        {
            "at": "2030-01-01T12:00:01Z",
            "ms": 38,
            "status": 500,
            "error": "it answered 500",
            "answer": "out of order",
        },
        {"at": "2030-01-01T12:00:05Z", "ms": 41, "status": 204, "error": "", "answer": ""},
    ],
}

list_callbacks = extend_schema(
    operation_id="listCallbacks",
    tags=["execution"],
    summary="Deliveries of an execution's callback, with each try",
    description=(
        "Empty without a `callback_url`, and until the execution has ended. Its end is sent to "
        "that address as JSON, at least once, with the headers `Boxer-Delivery` (the same for "
        "each try), `Boxer-Event`, `Boxer-Timestamp` (Unix seconds) and `Boxer-Signature`: `v1=` "
        "and the HMAC-SHA256 in hexadecimal, with the user's secret, of the timestamp, a dot and "
        "the body. Any answer but 2xx is tried again, for a day."
    ),
    responses={
        200: OpenApiResponse(
            CallbackListSerializer,
            description="The deliveries.",
            examples=[OpenApiExample("delivered", value={"callbacks": [DELIVERY]})],
        ),
        404: ABSENT,
    },
)


def _secret(description: str) -> dict[int, OpenApiResponse]:
    example = {"secret": "pVqtYh7cVvYkS0E7q1m4dE3uF8y2xGfYwq0bR5nZc9A"}
    return {
        200: OpenApiResponse(
            CallbackSecretSerializer,
            description=description,
            examples=[OpenApiExample("secret", value=example)],
        ),
        500: BROKEN,
    }


get_secret = extend_schema(
    operation_id="getCallbackSecret",
    tags=["execution"],
    summary="The secret that one's callbacks are signed with",
    description="Made when it is first needed.",
    responses=_secret("The secret."),
)

rotate_secret = extend_schema(
    operation_id="rotateCallbackSecret",
    tags=["execution"],
    summary="Make another secret for one's callbacks",
    description="Every try from now on is signed with it, those of older callbacks as well.",
    request=None,
    responses=_secret("The new secret."),
)
