"""POST /files and GET /files."""

from contextlib import closing
from typing import BinaryIO

from django.core.handlers.asgi import ASGIRequest
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from filestore import services
from filestore.api.downloads import Download
from filestore.api.error_shape import error_response
from filestore.api.parsers import UploadParser
from filestore.api.ranges import ByteRange, Unsatisfiable, byte_range, unchanged
from filestore.api.schema import (
    BINARY,
    StoredPathSerializer,
    download_operation,
    upload_operation,
)
from filestore.api.uploads import query_path, upload_fields
from filestore.errors import BlobGone, FileMissing
from filestore.models import StoredFile
from filestore.signals import downloaded

_OPEN_ATTEMPTS = 5
OUTPUT = "output/"


class FilesViewSet(ViewSet):
    """Files by their paths. What users stored is never shown by a browser, only saved."""

    parser_classes = [UploadParser]
    serializer_class = StoredPathSerializer

    @upload_operation
    def upload(self, request: Request) -> Response:
        path, source = upload_fields(request)
        owner_id: int = request.user.pk  # type: ignore[assignment]  # saved, so it has one
        with closing(source):
            stored = services.store(owner_id=owner_id, path=path, source=source)
        return Response(StoredPathSerializer({"path": stored.path}).data)

    @download_operation
    def download(self, request: Request) -> HttpResponseBase:
        path = query_path(request)
        for _ in range(_OPEN_ATTEMPTS):
            try:
                return contents_answer(request, _find(request, path))
            except BlobGone:
                continue  # Replaced between the look-up and the opening: look again.
        raise BlobGone(f"{path} changes too fast; try again")

    def perform_content_negotiation(
        self,
        request: Request,  # noqa: ARG002 (DRF's signature)
        force: bool = False,  # noqa: ARG002
    ) -> tuple[BaseRenderer, str]:
        """Contents are what they are, whatever `Accept` says (an image, an archive)."""
        renderer = self.get_renderers()[0]
        return renderer, renderer.media_type or ""

    def initialize_request(self, request: HttpRequest, *args: object, **kwargs: object) -> Request:
        """A body without Content-Length (chunked) is measured: the framework takes it for empty."""
        if isinstance(request, ASGIRequest) and not request.META.get("CONTENT_LENGTH"):
            body: BinaryIO = request._stream  # noqa: SLF001
            request.META["CONTENT_LENGTH"] = str(body.seek(0, 2))
            body.seek(0)
        return super().initialize_request(request, *args, **kwargs)


def _find(request: Request, path: str) -> StoredFile:
    """A path means one's own file; what a run left is named by the run, and so its owner's."""
    there = StoredFile.objects.select_related("blob").at(path)
    stored = there.filter(owner_id=request.user.pk).first()
    if stored is None and path.startswith(OUTPUT):
        # Nobody else can have a file there: uploads to output/ are refused.
        stored = there.visible_to(request.user).first()
    if stored is None:
        raise FileMissing(paths=[path])
    return stored


def contents_answer(request: Request, stored: StoredFile) -> HttpResponseBase:
    size, etag = stored.blob.size, f'"{stored.blob.sha256}"'
    asked = request.headers
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    if unchanged(asked.get("If-None-Match"), etag):
        return HttpResponseNotModified(headers=headers)
    try:
        part = byte_range(asked.get("Range"), asked.get("If-Range"), size=size, etag=etag)
    except Unsatisfiable:
        return _unsatisfiable(size)
    headers |= _content_headers(stored, part)
    status = 206 if part else 200
    if request.method == "HEAD":
        return HttpResponse(status=status, headers=headers)
    part = part or ByteRange(0, size)
    contents = _open_at(stored, part.start)
    try:
        downloaded.send(type(stored), request=request, stored_file=stored)
    except BaseException:
        contents.close()
        raise
    _give_connection_back()
    return Download(contents, part.length, status=status, headers=headers)


def _content_headers(stored: StoredFile, part: ByteRange | None) -> dict[str, str]:
    size = stored.blob.size
    filename = stored.path.rsplit("/", 1)[-1]
    headers = {
        "Content-Type": BINARY,
        "Content-Length": str(part.length if part else size),
        "Content-Disposition": content_disposition_header(True, filename) or "attachment",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return headers | ({"Content-Range": part.content_range(size)} if part else {})


def _open_at(stored: StoredFile, start: int) -> BinaryIO:
    """Seeking also makes storages that fetch late (S3) fetch now, before a status is promised."""
    contents = services.open_file(stored_file=stored)
    try:
        contents.seek(start)
    except BaseException:
        contents.close()
        raise
    return contents


def _give_connection_back() -> None:
    """A slow client must not keep a database connection while it downloads."""
    if not connection.in_atomic_block:
        connection.close()


def _unsatisfiable(size: int) -> HttpResponse:
    return error_response(
        416,
        f"Range: the file has {size} bytes",
        "range_not_satisfiable",
        headers={"Content-Range": f"bytes */{size}"},
    )
