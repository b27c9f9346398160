"""Files as one zip that is written while it is sent: a piece of one file is in memory at a time."""

import io
import zipfile
from collections.abc import AsyncIterator, Iterator, Sequence

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse

from filestore import services as filestore
from filestore.blobs import CHUNK_BYTES
from filestore.models import StoredFile


class _Sink(io.RawIOBase):
    """Takes what the archive writes until somebody fetches it; it can't be sought in."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._pieces.append(bytes(data))
        return len(data)

    def fetch(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def zipped(files: Sequence[StoredFile], prefix: str) -> Iterator[bytes]:
    """Raises BlobGone and StorageFailed in the middle: then the archive has no end."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.path.removeprefix(prefix), file.created_at.timetuple()[:6])
            entry.file_size = file.blob.size
            with filestore.open_file(stored_file=file) as contents, archive.open(entry, "w") as out:
                while chunk := contents.read(CHUNK_BYTES):
                    out.write(chunk)
                    yield sink.fetch()
    yield sink.fetch()


class ZipResponse(StreamingHttpResponse):
    """Each piece is made in a thread when the client has taken the one before."""

    def __init__(self, files: Sequence[StoredFile], prefix: str, name: str) -> None:
        self._made = zipped(files, prefix)
        super().__init__(
            self._made,
            headers={
                "Content-Type": "application/zip",
                "Content-Disposition": f'attachment; filename="{name}"',
                "Cache-Control": "private, no-cache",
                "X-Content-Type-Options": "nosniff",
            },
        )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        make = sync_to_async(lambda: next(self._made, None), thread_sensitive=False)
        while (piece := await make()) is not None:
            if piece:
                yield piece
