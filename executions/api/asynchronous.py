"""Viewsets whose actions are coroutines: many requests can wait and keep no thread busy."""

import asyncio
import contextvars
import select
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial, update_wrapper
from typing import Any, ParamSpec, TypeVar

import psycopg
from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

P = ParamSpec("P")
T = TypeVar("T")

AsyncView = Callable[..., Coroutine[Any, Any, HttpResponseBase]]


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what blocks (the database above all) off the event loop.

    The connection goes back to the pool before this returns: what waits afterwards holds none.
    When the caller is cancelled, the call itself goes on to its end.
    """
    return await _in_thread(function, *args, **kwargs)


def _and_give_back(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return function(*args, **kwargs)
    finally:
        for opened in connections.all(initialized_only=True):
            if not opened.in_atomic_block:
                opened.close()


_in_thread = sync_to_async(_and_give_back, thread_sensitive=True)


KEPT_THREADS = 6
"""A submission and the look at its end take milliseconds; what waits, waits on the event loop."""

_kept = ThreadPoolExecutor(KEPT_THREADS, thread_name_prefix="boxer hot path")


async def in_kept_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As in_thread(), in one of a few threads that keep their connections: for the path of a run.

    A thread and a connection of its own cost a request more than what it asks the database.
    """
    context = contextvars.copy_context()
    call = partial(_with_kept_connection, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_kept, context.run, call)


def _with_kept_connection(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    if connection.connection is not None and _has_ended(connection.connection):
        connection.close()
    try:
        return function(*args, **kwargs)
    finally:
        if connection.errors_occurred or connection.in_atomic_block:
            connection.close()


def _has_ended(kept: psycopg.Connection[Any]) -> bool:
    """Whether the server has said something to an idle connection: that can only be its end."""
    return kept.closed or bool(select.select([kept.fileno()], [], [], 0)[0])


class AsyncViewSet(ViewSet):
    """Django REST framework runs actions in a thread each; here they run on the event loop.

    An action calls `self.initial(request)` itself (authentication, permissions, negotiation), since
    only it knows what else it wants to do in the same thread. Exceptions go through DRF's handler.
    """

    http_method_names = ["get", "head", "post"]

    @classmethod
    def as_view(  # type: ignore[override]  # DRF's gives a plain function
        cls, actions: Mapping[str, str] | None = None, **initkwargs: Any
    ) -> AsyncView:
        dispatching = super().as_view(dict(actions or {}), **initkwargs)

        async def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            # The call makes the instance and its coroutine: `dispatch` below.
            answer: Coroutine[Any, Any, HttpResponseBase] = dispatching(request, *args, **kwargs)  # type: ignore[assignment]
            return await answer

        # Brings csrf_exempt, cls and actions along, which Django and drf-spectacular look for.
        return update_wrapper(view, dispatching)

    def initialize_request(self, request: HttpRequest, *args: object, **kwargs: object) -> Request:
        """DRF takes a body without Content-Length (chunked) for an empty one; it isn't."""
        if not request.META.get("CONTENT_LENGTH"):
            request.META["CONTENT_LENGTH"] = str(len(request.body))
        return super().initialize_request(request, *args, **kwargs)

    async def dispatch(  # type: ignore[override]  # DRF's is a plain function
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        self.args, self.kwargs = args, kwargs
        self.request = drf_request = self.initialize_request(request, *args, **kwargs)
        self.headers = self.default_response_headers
        response: HttpResponseBase
        try:
            response = await self._action(request.method or "")(drf_request)
        except Exception as error:  # noqa: BLE001 (DRF's handler answers or raises it again)
            response = self.handle_exception(error)
        self.response = self.finalize_response(drf_request, response, *args, **kwargs)  # type: ignore[arg-type]
        return self.response

    def _action(self, method: str) -> Callable[[Request], Coroutine[Any, Any, HttpResponseBase]]:
        action = getattr(self, method.lower(), None)
        if action is None or method.lower() not in self.http_method_names:
            raise MethodNotAllowed(method)
        return action  # type: ignore[no-any-return]
