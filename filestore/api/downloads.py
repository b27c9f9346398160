"""A response that streams contents in pieces, under ASGI and WSGI alike, and always closes them."""

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, BinaryIO

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse

from filestore.blobs import CHUNK_BYTES
from filestore.errors import StorageFailed


class Download(StreamingHttpResponse):
    """`length` bytes of `contents` from where it stands.

    Django reads a plain iterator whole into memory under ASGI, hence `__aiter__`: each piece is
    read in a thread when the client has taken the one before. `contents` is closed at the end, when
    the client goes away (the iterator is closed then), and when nobody iterates (`close()`).
    """

    def __init__(self, contents: BinaryIO, length: int, **options: Any) -> None:
        self._contents = contents
        self._left = length
        # A read may still be under way in its thread when the client goes away.
        self._lock = threading.Lock()
        super().__init__(self._chunks(), **options)
        self._resource_closers.append(self._close_contents)  # type: ignore[attr-defined]

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self._read():
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = sync_to_async(self._read, thread_sensitive=False)
        try:
            while chunk := await read():
                yield chunk
        finally:
            await sync_to_async(self._close_contents, thread_sensitive=False)()

    def _read(self) -> bytes:
        with self._lock:
            if not self._left:
                return b""
            chunk = self._contents.read(min(CHUNK_BYTES, self._left))
            if not chunk:
                # Ending here would look like a whole file to clients that don't count.
                raise StorageFailed("the stored contents are shorter than they should be")
            self._left -= len(chunk)
            return chunk

    def _close_contents(self) -> None:
        with self._lock:
            self._left = 0
            self._contents.close()
