"""How the operations on tokens read in the OpenAPI document."""

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema

from executions.accounts.api.serializers import (
    NewTokenSerializer,
    TokenRequestSerializer,
    TokensSerializer,
)
from executions.api.schema import REPEATED, failure
from executions.idempotency.api.header import PARAMETER as IDEMPOTENCY_KEY

_TOKEN = {
    "id": 7,
    "name": "nightly build",
    "created_at": "2026-11-28T12:00:00Z",
    "expires_at": "2027-02-26T12:00:00Z",
    "last_used_at": None,
}
_FORBIDDEN = failure(
    "anonymous has no tokens, or a session came without its X-CSRFToken",
    {"error": "anonymous has no tokens; log in", "code": "permission_denied"},
)

listing = extend_schema(
    operation_id="listTokens",
    tags=["accounts"],
    summary="List one's tokens",
    description="Newest first, without what is secret of them.",
    responses={
        200: OpenApiResponse(
            TokensSerializer,
            "One's tokens",
            examples=[OpenApiExample("Tokens", value={"results": [_TOKEN]})],
        ),
        403: _FORBIDDEN,
    },
)
creation = extend_schema(
    operation_id="createToken",
    tags=["accounts"],
    summary="Make a token",
    description="The answer shows it, and nothing ever does again. None outlives its maker.",
    request=TokenRequestSerializer,
    parameters=[IDEMPOTENCY_KEY],
    responses={
        201: OpenApiResponse(
            NewTokenSerializer,
            "Made",
            examples=[OpenApiExample("Made", value={**_TOKEN, "token": "boxer_0f3c…"})],
        ),
        400: failure(
            "A field is missing or wrong, or there are too many tokens",
            {"error": "name: This field is required.", "code": "invalid"},
        ),
        403: _FORBIDDEN,
        **REPEATED,
        413: failure("The request is too large", {"error": "too large", "code": "too_large"}),
        415: failure(
            "Not application/json",
            {"error": "Unsupported media type.", "code": "unsupported_media_type"},
        ),
    },
)
revocation = extend_schema(
    operation_id="revokeToken",
    tags=["accounts"],
    summary="Revoke a token",
    description="It opens nothing from now on.",
    parameters=[OpenApiParameter("token_id", int, OpenApiParameter.PATH)],
    responses={
        204: OpenApiResponse(description="Revoked"),
        403: _FORBIDDEN,
        404: failure(
            "There is no such token", {"error": "There is no token 7.", "code": "not_found"}
        ),
    },
)
