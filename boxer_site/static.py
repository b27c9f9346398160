"""Static files of admin and API pages, served by WhiteNoise without a thread for other requests."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile

from filestore.api.error_shape import error_response

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """WhiteNoise's own is for threads alone: under ASGI every waiting request would hold one."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        super().__init__(get_response)  # type: ignore[no-untyped-call]
        self.asynchronous = iscoroutinefunction(get_response)
        if self.asynchronous:
            markcoroutinefunction(self)

    def __call__(  # type: ignore[override]  # its base is a WSGI application
        self, request: HttpRequest
    ) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        static_file = self.files.get(request.path_info)
        if static_file is None:
            return self.get_response(request)  # type: ignore[no-any-return]
        if self.asynchronous:
            return sync_to_async(_read)(static_file, request)
        return _read(static_file, request)


def _read(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
    """The whole file at once: they are small, and a stream would hold a thread."""
    found = static_file.get_response(request.method, request.META)  # type: ignore[no-untyped-call]
    body = b""
    if found.file is not None:
        with found.file:
            body = found.file.read()
    status = HTTPStatus(found.status)
    if status >= HTTPStatus.BAD_REQUEST:
        code = status.name.lower()
        return error_response(status, f"{status.phrase}.", code, headers=dict(found.headers))
    response = HttpResponse(body, status=status)
    del response["Content-Type"]
    for name, value in found.headers:
        response[name] = value
    return response
