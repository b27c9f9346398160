"""Viewsets whose actions are coroutines: many requests can wait and keep no thread busy."""

from collections.abc import Callable, Coroutine, Mapping
from functools import update_wrapper
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections
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
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block:
                connection.close()


_in_thread = sync_to_async(_and_give_back, thread_sensitive=True)


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
