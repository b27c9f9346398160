"""What drf-spectacular doesn't know by itself: the errors and headers that every route can give."""

from collections.abc import Iterator
from typing import Any

ERROR = {"$ref": "#/components/schemas/Error"}

COMMON = {
    "405": (
        "The route has no such method.",
        "method_not_allowed",
        'Method "PUT" not allowed.',
    ),
    "406": (
        "The client accepts no content type that the route has.",
        "not_acceptable",
        "Could not satisfy the request Accept header.",
    ),
    "500": (
        "Boxer is at fault.",
        "internal_error",
        "Something went wrong on our side.",
    ),
    "503": (
        "The service can't work at the moment; try again after Retry-After seconds.",
        "unavailable",
        "The service can't reach its database; try again.",
    ),
}

WITH_A_LOGIN = {
    "401": (
        "No credentials, or wrong ones.",
        "bad_token",
        "There is no such token, or it has ended.",
    ),
    "403": (
        "Not allowed, or a browser's request without X-CSRFToken or from another site's page.",
        "permission_denied",
        "You may not do this.",
    ),
    "429": (
        "Too many wrong credentials came from there.",
        "too_many_failures",
        "too many failed attempts; try again in 60 s",
    ),
}

RETRY_AFTER: dict[str, tuple[str, dict[str, Any]]] = {
    "Retry-After": (
        "Seconds after which it is worth trying again.",
        {"type": "integer", "minimum": 1},
    )
}
HEADERS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "405": {"Allow": ("The methods that it knows.", {"type": "string"})},
    "401": {"WWW-Authenticate": ("Says that a token is asked for.", {"type": "string"})},
    "429": RETRY_AFTER,
    "503": RETRY_AFTER,
}


def complete(result: dict[str, Any], **_kwargs: Any) -> dict[str, Any]:
    """A postprocessing hook of drf-spectacular."""
    for operation in _operations(result):
        responses = operation["responses"]
        common = COMMON | (WITH_A_LOGIN if any(operation.get("security", ())) else {})
        for status, (description, code, error) in common.items():
            responses.setdefault(status, _response(description, code, error))
        for status, headers in HEADERS.items():
            if status in responses:
                responses[status].setdefault("headers", {}).update(_described(headers))
        operation["responses"] = dict(sorted(responses.items()))
    _drop_enum_ids(result)
    return result


def _operations(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in result["paths"].values():
        yield from path.values()


def _response(description: str, code: str, error: str) -> dict[str, Any]:
    example = {"value": {"error": error, "code": code}}
    content = {"application/json": {"schema": ERROR, "examples": {code: example}}}
    return {"description": description, "content": content}


def _described(headers: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    return {
        name: {"description": description, "required": True, "schema": schema}
        for name, (description, schema) in headers.items()
    }


def _drop_enum_ids(node: Any) -> None:
    """Marks that drf-spectacular leaves for its own enum hook, which isn't used."""
    if isinstance(node, dict):
        node.pop("x-spec-enum-id", None)
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        _drop_enum_ids(child)
