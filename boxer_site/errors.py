"""Where errors meet HTTP: every answer that isn't 2xx gets its status and JSON shape here."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from psycopg_pool import PoolTimeout
from rest_framework import exceptions
from rest_framework.exceptions import ErrorDetail
from rest_framework.views import set_rollback

from executions.errors import (
    BoxerError,
    Conflict,
    HostNetworkForbidden,
    IdempotencyMismatch,
    ImageRefused,
    InvalidRequest,
    NoExecution,
    OutputLimitExceeded,
    QuotaExceeded,
    QuotaForbids,
    ServiceBusy,
    TooManyFailures,
    WallClockExceeded,
)
from executions.image_policy.errors import PrefetchEnded
from filestore.api.error_shape import error_response
from filestore.errors import (
    BadPath,
    BlobGone,
    FileMissing,
    FilestoreError,
    StorageFailed,
    StorageQuotaExceeded,
    TooLarge,
)

logger = logging.getLogger(__name__)

# The first class that fits decides; an error of ours that no line knows is a 500.
STATUS: tuple[tuple[type[Exception], int], ...] = (
    (TooManyFailures, 429),
    (InvalidRequest, 400),
    (ImageRefused, 403),
    (PrefetchEnded, 409),
    (NoExecution, 404),
    (Conflict, 409),
    (IdempotencyMismatch, 422),
    (QuotaForbids, 403),
    (HostNetworkForbidden, 403),
    (QuotaExceeded, 429),
    (ServiceBusy, 503),
    (WallClockExceeded, 408),
    (OutputLimitExceeded, 507),
    (BadPath, 400),
    (FileMissing, 404),
    (TooLarge, 413),
    (StorageQuotaExceeded, 413),
    (BlobGone, 503),
    (StorageFailed, 503),
)

TITLES = {400: "Bad request", 403: "Forbidden", 404: "Not found", 500: "Internal error"}


def exception_handler(exc: Exception, _context: Mapping[str, Any]) -> HttpResponse:
    """Django REST framework's EXCEPTION_HANDLER; always answers, in JSON whatever was asked for."""
    set_rollback()
    return response_to(exc)


def response_to(exc: Exception) -> JsonResponse:
    """The answer to an exception; an unforeseen one is logged, and the client learns nothing."""
    match exc:
        case BoxerError():
            return _boxer_error(exc)
        case FilestoreError():
            return error_response(_status(exc), exc.message, exc.code)
        case exceptions.ValidationError():
            return _validation_error(exc)
        case exceptions.APIException():
            return _api_exception(exc)
        case Http404():
            return error_response(404, "Not found.", "not_found")
        case PermissionDenied():
            return error_response(403, "You may not do this.", "permission_denied")
        case RequestDataTooBig():
            return error_response(413, "The request is too large.", "too_large")
        case SuspiciousOperation():
            return error_response(400, "The request is malformed.", "bad_request")
        case OperationalError() | InterfaceError() | PoolTimeout():
            return _unavailable(exc)
    logger.error("Unexpected %s", type(exc).__name__, exc_info=exc)
    return error_response(500, "Something went wrong on our side.", "internal_error")


def _status(exc: Exception) -> int:
    return next((status for kind, status in STATUS if isinstance(exc, kind)), 500)


def _boxer_error(exc: BoxerError) -> JsonResponse:
    return error_response(
        _status(exc),
        exc.message,
        exc.code,
        retry_after=exc.retry_after if isinstance(exc, ServiceBusy) else 0,
        exec_id=exc.exec_id,
        fields=exc.fields if isinstance(exc, InvalidRequest) else {},
        details=exc.details,
    )


def _unavailable(exc: Exception) -> JsonResponse:
    # The message of a database error can hold addresses and queries: for the log alone.
    logger.warning("The database can't be used: %s", exc)
    return error_response(503, "The service can't reach its database; try again.", "unavailable")


def _api_exception(exc: exceptions.APIException) -> JsonResponse:
    headers = {}
    if challenge := getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = str(challenge)
    if wait := getattr(exc, "wait", None):
        headers["Retry-After"] = str(int(wait) or 1)
    detail = exc.detail if isinstance(exc.detail, ErrorDetail) else None
    error = detail or exc.default_detail or "The request failed."
    code = detail.code if detail else exc.default_code
    return error_response(exc.status_code, str(error), str(code), headers=headers)


def _validation_error(exc: exceptions.ValidationError) -> JsonResponse:
    found: dict[str, list[str]] = {}
    for name, message in _flat(exc.detail):
        found.setdefault(name, []).append(message)
    name, messages = next(iter(found.items()), ("", ["The request is invalid."]))
    error = f"{name}: {messages[0]}" if name else messages[0]
    found.pop("", None)
    return error_response(exc.status_code, error, "invalid", fields=found)


def _flat(detail: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, message) of each leaf of a ValidationError's detail."""
    if isinstance(detail, Mapping):
        for key, value in detail.items():
            inner = "" if key == "non_field_errors" else str(key)
            yield from _flat(value, ".".join(part for part in (name, inner) if part))
    elif isinstance(detail, list):
        for value in detail:
            yield from _flat(value, name)
    else:
        yield name, str(detail)


# ── Django's own handlers: what no view answers ──────────────────────────────────────────────────


def wants_html(request: HttpRequest) -> bool:
    """True for a browser: `text/html` by name, not by a wildcard that any client sends."""
    ranges = request.headers.get("Accept", "").lower().split(",")
    return any(item.split(";")[0].strip() == "text/html" for item in ranges)


def _answer(request: HttpRequest, status: int, error: str, code: str) -> HttpResponse:
    if not wants_html(request):
        return error_response(status, error, code)
    context = {"status": status, "title": TITLES[status], "error": error}
    return render(request, "error.html", context, status=status)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001
    return _answer(request, 400, "The request is malformed.", "bad_request")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001
    return _answer(request, 403, "You may not do this.", "permission_denied")


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001
    return _answer(request, 404, "There is nothing at this address.", "not_found")


def server_error(request: HttpRequest) -> HttpResponse:
    return _answer(request, 500, "Something went wrong on our side.", "internal_error")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001
    return _answer(request, 403, "The form has expired; reload the page.", "csrf_failed")
