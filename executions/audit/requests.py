"""Whose request this thread or coroutine works for, so that an entry can say who."""

import os
import pwd
import socket
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from executions.actor import Actor

NOBODY = 0
"""`Actor.user_id` of what no account did: a command on a host, a request before its login."""

_request: ContextVar[HttpRequest | None] = ContextVar("audited_request", default=None)


@sync_and_async_middleware
def current_request(
    get_response: Callable[[HttpRequest], Any],
) -> Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]:
    """Middleware: the request is known to everything that is called while it is answered."""
    if iscoroutinefunction(get_response):

        async def answer(request: HttpRequest) -> HttpResponseBase:
            _request.set(request)  # a task's context is its own: there is nothing to reset
            response: HttpResponseBase = await get_response(request)
            return response

        return answer

    def answer_in_thread(request: HttpRequest) -> HttpResponseBase:
        before = _request.set(request)
        try:
            response: HttpResponseBase = get_response(request)
            return response
        finally:
            _request.reset(before)

    return answer_in_thread


def current_actor() -> Actor:
    """Who made the request that is being answered; without one, who runs this process."""
    request = _request.get()
    return local_actor() if request is None else actor_of(request)


def actor_of(request: HttpRequest, user: Any = None) -> Actor:
    """`user` where the request doesn't carry it (yet, or any more)."""
    # DRF leaves what it has authenticated on Django's request as well.
    who = user or getattr(request, "user", None)
    auth = getattr(request, "auth", None)
    return Actor(
        user_id=getattr(who, "pk", None) or NOBODY,
        username=who.get_username() if who is not None else "",
        token=str(getattr(auth, "name", "") or ""),
        address=address_of(request),
    )


def address_of(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))


def local_actor() -> Actor:
    """The account of the host that runs this process, as `local:root@host`."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return Actor(NOBODY, f"local:{name}@{socket.gethostname()}")
