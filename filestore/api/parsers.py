"""Multipart uploads: bounded while they are read, refused when they are cut off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Any

from django.conf import settings
from django.core.files.uploadhandler import FileUploadHandler, StopUpload
from django.utils.http import parse_header_parameters
from rest_framework.exceptions import ParseError
from rest_framework.parsers import DataAndFiles, MultiPartParser

from filestore.errors import TooLarge

_TAIL_BYTES = 1024
_DRAIN_BYTES = 64 << 10


class SizeLimit(FileUploadHandler):
    """Stops the reading of a file at the limit; the handlers behind it never see more."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.exceeded = False

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        if start + len(raw_data) > self.limit:
            self.exceeded = True
            raise StopUpload(connection_reset=True)
        return raw_data

    def file_complete(self, file_size: int) -> None:  # noqa: ARG002
        """The next handler has the file."""
        return


class _Tail:
    """The stream, and the end of what was read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(size)
        self.tail = (self.tail + chunk)[-_TAIL_BYTES:]
        return chunk


class UploadParser(MultiPartParser):
    """multipart/form-data; Django's own parser takes a body that ends in the middle for whole."""

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> DataAndFiles[Any, Any]:
        assert parser_context is not None  # noqa: S101 - the framework always gives it
        request = parser_context["request"]
        limit = SizeLimit(settings.BOXER_UPLOAD_LIMIT_BYTES)
        handlers: list[FileUploadHandler] = request.upload_handlers
        handlers.insert(0, limit)
        body = _Tail(stream)
        try:
            parsed = super().parse(body, media_type, parser_context)  # type: ignore[arg-type]
        except BaseException:
            _close(getattr(handler, "file", None) for handler in handlers)
            raise
        refusal = _refusal(limit, body, media_type or "")
        if refusal is not None:
            _close(file for _, files in parsed.files.lists() for file in files)
            raise refusal
        return parsed


def _refusal(limit: SizeLimit, body: _Tail, media_type: str) -> Exception | None:
    if limit.exceeded:
        return TooLarge(f"file: larger than {limit.limit} bytes")
    while body.read(_DRAIN_BYTES):
        pass  # What Django left unread still counts.
    boundary = str(parse_header_parameters(media_type)[1].get("boundary", ""))
    if body.tail and not body.tail.rstrip().endswith(f"--{boundary}--".encode()):
        return ParseError("Malformed multipart: the body doesn't end with the closing boundary.")
    return None


def _close(files: Iterable[IO[bytes] | None]) -> None:
    """Temporary files vanish as they are closed."""
    for file in files:
        if file is not None:
            file.close()
