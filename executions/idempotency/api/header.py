"""`Idempotency-Key`: a POST that makes something may be repeated, and makes it once."""

import hashlib
import re
from collections.abc import Callable
from typing import cast

from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.views import APIView

from executions.idempotency import services
from executions.idempotency.services import Made

NAME = "Idempotency-Key"
REPLAY = "Idempotent-Replay"
PATTERN = r"^[!-~]([ -~]{0,253}[!-~])?$"
"""1 to 255 printable ASCII characters; whatever surrounds a header's value is none of it."""

PARAMETER = OpenApiParameter(
    NAME,
    {"type": "string", "maxLength": 255, "pattern": PATTERN},
    OpenApiParameter.HEADER,
    description=(
        "The same key and body within 24 hours get the answer to the first, and nothing is made "
        f"twice; `{REPLAY}: true` says so."
    ),
)


def once(view: APIView, request: Request, make: Callable[[], str]) -> Made:
    """Call `make`, which gives the id of what it makes; without the header that is all.

    `make` is what first looks at `request.data`. An answer to a repetition says so in its own
    header. Raises ValidationError for a key that is none, IdempotencyMismatch, and what `make`
    raises: then the key isn't used up.
    """
    key = request.headers.get(NAME)
    if key is None:
        return Made(make())
    if not re.fullmatch(PATTERN[1:-1], key):
        raise ValidationError({NAME: ["Must be 1 to 255 printable ASCII characters."]})
    made = services.once(
        owner_id=cast(int, request.user.pk),
        key=key,
        fingerprint=_fingerprint(request),
        make=make,
    )
    if made.replayed:
        view.headers[REPLAY] = "true"
    return made


def _fingerprint(request: Request) -> bytes:
    """SHA-256 of method, path and body."""
    http = request._request  # noqa: SLF001 (DRF names it so in its documentation)
    line = f"{http.method} {http.get_full_path()}\n"
    return hashlib.sha256(line.encode() + http.body).digest()
