"""The ASGI application; a body over its limit is refused before anything of it is read."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "boxer_site.settings")

import django
from django.conf import settings

django.setup(set_prefix=False)

from boxer_site.handler import Handler  # noqa: E402 (it imports models)

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MULTIPART_OVERHEAD = 64 << 10
"""What the boundaries, headers and the other fields around an uploaded file may take."""
LINGER_SECS = 2.0
"""A client that is still sending when its connection is closed may never see the answer."""


class BodyLimit:
    """Answers 413 in place of `application` where a request's body is over its limit.

    A length that was declared is judged by itself; a chunked body is counted as it arrives.
    """

    def __init__(self, application: Application, limit_of: Callable[[str], int]) -> None:
        self.application = application
        self.limit_of = limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        limit = self.limit_of(scope["path"])
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if not all(value.isdigit() for value in lengths):
            error = "Content-Length must be a whole number."
            await answer(receive, send, 400, "bad_request", error)
            return
        declared_too_large = any(int(value[:20]) > limit for value in lengths)
        if declared_too_large or not await self._counted(scope, receive, send, limit):
            await refuse(receive, send, limit)

    async def _counted(self, scope: Scope, receive: Receive, send: Send, limit: int) -> bool:
        """Run the application; False when the body went over the limit before it answered."""
        seen, answered = 0, False

        async def counting_receive() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            # To Django a client that went away: it lets go of what it has of the body.
            return message if seen <= limit else {"type": "http.disconnect"}

        async def noting_send(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        await self.application(scope, counting_receive, noting_send)
        return answered or seen <= limit


class Farewell:
    """Answers 503 for a request that the server cancels: it does so when it stops.

    uvicorn itself would say "Internal Server Error" to whoever waits for a run.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = False

        async def noting_send(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        try:
            await self.application(scope, receive, noting_send)
        except asyncio.CancelledError:
            if answering or scope["type"] != "http":
                raise
            error = "The service stopped before the answer came; a run that was accepted may go on."
            await begin(send, 503, "stopping", error, (b"retry-after", b"5"))
            await send({"type": "http.response.body"})


async def refuse(receive: Receive, send: Send, limit: int) -> None:
    error = f"The request's body must not exceed {limit} bytes."
    await answer(receive, send, 413, "too_large", error)


async def answer(receive: Receive, send: Send, status: int, code: str, error: str) -> None:
    """The connection ends with it: the rest of the body is still on its way."""
    await begin(send, status, code, error)
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECS):
            await throw_away(receive)
    await send({"type": "http.response.body"})


async def begin(send: Send, status: int, code: str, error: str, *more: tuple[bytes, bytes]) -> None:
    """All of an answer but its end."""
    body = json.dumps({"error": error, "code": code}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def throw_away(receive: Receive) -> None:
    message = await receive()
    while message["type"] == "http.request" and message.get("more_body"):
        message = await receive()


def limit_of(path: str) -> int:
    if path.rstrip("/") == "/files":
        return int(settings.BOXER_UPLOAD_LIMIT_BYTES) + MULTIPART_OVERHEAD
    return int(settings.BOXER_REQUEST_LIMIT_BYTES)


application = Farewell(BodyLimit(Handler(), limit_of))
