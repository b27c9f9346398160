"""Django's ASGI handler, answering in JSON where Django can't even make a request of what came."""

import logging
from collections.abc import Mapping
from typing import IO, Any

from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.signals import request_started
from django.db import close_old_connections, reset_queries
from django.http.response import HttpResponseBase

from filestore.api.error_shape import error_response

logger = logging.getLogger(__name__)


class Handler(ASGIHandler):
    def __init__(self) -> None:
        super().__init__()
        # Each request's thread is new, and so has no connection that could be old: what Django does
        # at the start of a request would only make that thread, for requests that need none.
        for receiver in (reset_queries, close_old_connections):
            request_started.disconnect(receiver)

    def create_request(
        self, scope: Mapping[str, Any], body_file: IO[bytes]
    ) -> tuple[ASGIRequest, None] | tuple[None, HttpResponseBase]:
        """Django lets some headers raise here (a Content-Type with an unknown encoding does)."""
        try:
            made = super().create_request(scope, body_file)
        except ValueError as error:
            logger.info("request refused: %s", error)
            return None, malformed()
        return made if made[0] is not None else (None, malformed())


def malformed() -> HttpResponseBase:
    return error_response(400, "The request's path or a header of it is malformed.", "bad_request")
