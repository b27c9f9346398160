"""What every answer that isn't 2xx looks like, for all of the API.

Here since everything above may import it; boxer_site/errors.py decides what an error is answered.
"""

from collections.abc import Mapping
from typing import Any

from django.http import JsonResponse
from rest_framework import serializers

RETRY_SECS = 5
"""Told with every 503 that knows no better."""


class ErrorSerializer(serializers.Serializer[Any]):
    """What every answer that isn't 2xx looks like."""

    error = serializers.CharField(help_text="What is wrong, for people.")
    code = serializers.CharField(help_text="What is wrong, for programs; stable.")
    exec_id = serializers.CharField(required=False, help_text="The execution that this is about.")
    fields = serializers.DictField(  # type: ignore[assignment]  # the name is the API's
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="What is wrong with each field; dots lead into objects and lists.",
    )


def error_response(
    status: int,
    error: str,
    code: str,
    *,
    retry_after: int = 0,
    headers: Mapping[str, str] | None = None,
    exec_id: str = "",
    fields: Mapping[str, list[str]] | None = None,
    details: Mapping[str, object] | None = None,
) -> JsonResponse:
    """The one shape; `exec_id` and `fields` are left out where they are empty."""
    body: dict[str, object] = {"error": error, "code": code}
    if exec_id:
        body["exec_id"] = exec_id
    if fields:
        body["fields"] = fields
    response = JsonResponse(body | dict(details or {}), status=status, headers=dict(headers or {}))
    if retry_after or status == 503:
        response["Retry-After"] = str(retry_after or RETRY_SECS)
    return response
