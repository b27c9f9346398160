"""Contents: written once to the default storage, found by their hash, held while referred to."""

import hashlib
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import BinaryIO, cast

from django.core.files import File
from django.core.files.storage import default_storage
from django.db import IntegrityError, transaction
from django.utils import timezone

from filestore import garbage
from filestore.errors import BlobGone, StorageFailed
from filestore.models import Blob

logger = logging.getLogger(__name__)

CHUNK_BYTES = 256 << 10
KEPT_WITHOUT_REFERENCE = timedelta(minutes=10)
_SETTLE_ATTEMPTS = 10


def store_blob(*, source: BinaryIO) -> Blob:
    """Stores contents without a path, for a reference that is added within ten minutes.

    `source` is read twice from its start, in chunks, and must not change meanwhile. Not to be
    called inside a transaction. Raises StorageFailed.
    """
    with ready_blob(source=source, kept_until=timezone.now() + KEPT_WITHOUT_REFERENCE) as blob:
        return blob


def open_blob(*, blob: Blob) -> BinaryIO:
    """Its contents, to be closed by the caller. Raises BlobGone, StorageFailed."""
    try:
        return cast("BinaryIO", default_storage.open(blob.name, "rb"))
    except FileNotFoundError:
        raise BlobGone(f"contents {blob.sha256} are gone") from None
    except Exception as error:
        logger.exception("object %s can't be read", blob.name)
        raise StorageFailed(f"the storage didn't give {blob.sha256}") from error


def share_lock(*, blob_id: int) -> bool:
    """Keeps a ready blob from being doomed until the transaction ends; False when it isn't ready.

    FOR SHARE, which Django can't say: many may refer to one blob at the same time.
    """
    sql = "SELECT * FROM filestore_blob WHERE id = %s AND state = 'ready' FOR SHARE"
    return bool(list(Blob.objects.raw(sql, [blob_id])))


@contextmanager
def ready_blob(*, source: BinaryIO, kept_until: datetime | None = None) -> Iterator[Blob]:
    """A transaction in which the contents of `source` are ready and stay so until it ends."""
    sha256, size = measure(source)
    with transaction.atomic(durable=True):
        found = _find_ready(sha256, kept_until)
        if found is not None:
            yield found
            return
    written = _write(source, sha256, size, kept_until)
    try:
        with transaction.atomic(durable=True):
            used = _settle(written)
            yield used
    except BaseException:
        garbage.abandon(written)
        raise
    if used is not written:
        garbage.abandon(written)


def measure(source: BinaryIO) -> tuple[str, int]:
    """sha256 and size of what `source` holds from its start."""
    digest, size = hashlib.sha256(), 0
    source.seek(0)
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def _find_ready(sha256: str, kept_until: datetime | None) -> Blob | None:
    if kept_until is not None:
        # Before the share lock: two that share one and both want to write would wait for ever.
        Blob.objects.filter(sha256=sha256, state=Blob.State.READY).update(kept_until=kept_until)
    sql = "SELECT * FROM filestore_blob WHERE sha256 = %s AND state = 'ready' FOR SHARE"
    return next(iter(Blob.objects.raw(sql, [sha256])), None)


def _write(source: BinaryIO, sha256: str, size: int, kept_until: datetime | None) -> Blob:
    """The row, committed, then the object; both are taken back when the storage fails."""
    blob = Blob.objects.create(
        sha256=sha256,
        size=size,
        name=f"blobs/{sha256[:2]}/{sha256}-{secrets.token_hex(8)}",
        kept_until=kept_until,
    )
    try:
        _save(blob, source)
    except BaseException:
        garbage.abandon(blob)
        raise
    return blob


def _save(blob: Blob, source: BinaryIO) -> None:
    source.seek(0)
    try:
        name = default_storage.save(blob.name, File(source, name=blob.name))
    except Exception as error:
        # Its message may hold addresses and credentials' names: for the log alone.
        logger.exception("object %s can't be written", blob.name)
        raise StorageFailed("the storage didn't take the contents") from error
    if name != blob.name:
        default_storage.delete(name)
        raise StorageFailed(f"the storage stored {blob.name} under another name")


def _settle(written: Blob) -> Blob:
    """Marks `written` ready; answers the other one where the same contents became ready first."""
    for _ in range(_SETTLE_ATTEMPTS):
        try:
            with transaction.atomic():
                mine = Blob.objects.filter(pk=written.pk, state=Blob.State.WRITING)
                marked = mine.update(state=Blob.State.READY)
        except IntegrityError:
            other = _find_ready(written.sha256, written.kept_until)
            if other is not None:
                return other
            continue  # It was doomed in between, so there is room now.
        if not marked:
            raise StorageFailed("writing took so long that it was given up")
        written.state = Blob.State.READY
        return written
    raise StorageFailed(f"contents {written.sha256} come and go too fast")
