"""What the file store does: store, link, look up, open, delete. All paths given here are clean."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import BinaryIO

from django.db import transaction

from filestore import admission
from filestore.blobs import open_blob, ready_blob, share_lock, store_blob
from filestore.errors import BlobGone, FileMissing
from filestore.garbage import collect_garbage, discard_blobs
from filestore.models import Blob, StoredFile, path_key

__all__ = [
    "collect_garbage",
    "delete",
    "discard_blobs",
    "link",
    "open_blob",
    "open_file",
    "references",
    "store",
    "store_blob",
    "unlink",
]


def store(*, owner_id: int, path: str, source: BinaryIO) -> StoredFile:
    """Stores contents at the owner's path; what stood there is replaced in one step.

    `source` is read twice from its start, in chunks, and must not change meanwhile. Not to be
    called inside a transaction. Raises StorageFailed, and then nothing has changed.
    """
    with ready_blob(source=source) as blob:
        return _point(owner_id=owner_id, path=path, blob=blob)


def open_file(*, stored_file: StoredFile) -> BinaryIO:
    """Its contents, to be closed by the caller. Raises BlobGone, StorageFailed."""
    return open_blob(blob=stored_file.blob)


@transaction.atomic
def link(*, owner_id: int, path: str, blob: Blob) -> StoredFile:
    """Lets the owner's path mean `blob`, in place of what it meant. Raises BlobGone."""
    if not share_lock(blob_id=blob.pk):
        raise BlobGone(f"contents {blob.sha256} are gone")
    return _point(owner_id=owner_id, path=path, blob=blob)


@transaction.atomic(savepoint=False)
def references(*, owner_id: int, paths: Sequence[str]) -> list[StoredFile]:
    """The files at `paths`, in that order, whose contents stay until the transaction ends.

    To be called inside the transaction that adds rows pointing at their blobs. Raises FileMissing
    with all paths at which the owner has no file.
    """
    sql = """
        SELECT file.* FROM filestore_storedfile file JOIN filestore_blob blob
        ON blob.id = file.blob_id AND blob.state = 'ready'
        WHERE file.owner_id = %s AND file.path_sha256 = ANY(%s)
        ORDER BY blob.id FOR SHARE OF blob
    """
    keys = [path_key(path) for path in paths]
    rows = StoredFile.objects.raw(sql, [owner_id, keys]).prefetch_related("blob")
    files = {file.path: file for file in rows}
    missing = [path for path in dict.fromkeys(paths) if path not in files]
    if missing:
        raise FileMissing(paths=missing)
    return [files[path] for path in paths]


@transaction.atomic
def unlink(
    *, owner_id: int, path: str, blob_id: int, stored_before: datetime | None = None
) -> bool:
    """Deletes the owner's file at `path` if it still means that blob; True when it did.

    With `stored_before`, a file that was stored anew since then is left alone. Its contents go when
    the transaction has been committed, if nothing else refers to them then.
    """
    files = StoredFile.objects.filter(owner_id=owner_id, blob_id=blob_id).at(path)
    if stored_before is not None:
        files = files.filter(created_at__lt=stored_before)
    deleted, _ = files.delete()
    if deleted:
        _discard_on_commit(blob_id)
    return bool(deleted)


@transaction.atomic
def delete(*, owner_id: int, path: str) -> bool:
    """Deletes the owner's file at `path`, whatever it means; False when there is none."""
    files = StoredFile.objects.filter(owner_id=owner_id).at(path).select_for_update()
    file = files.first()
    return file is not None and unlink(owner_id=owner_id, path=path, blob_id=file.blob_id)


def _point(*, owner_id: int, path: str, blob: Blob) -> StoredFile:
    """The upsert; whoever calls holds a lock on `blob`. Raises what an admission raises."""
    before = StoredFile.objects.filter(owner_id=owner_id).at(path).select_for_update(of=["self"])
    replaced, size = before.values_list("blob_id", "blob__size").first() or (None, None)
    admission.admit(owner_id, blob.size, size)
    [file] = StoredFile.objects.bulk_create(
        [StoredFile(owner_id=owner_id, path=path, blob=blob)],
        update_conflicts=True,
        unique_fields=["owner", "path_sha256"],
        update_fields=["blob", "created_at"],
    )
    if replaced is not None and replaced != blob.pk:
        _discard_on_commit(replaced)
    return file


def _discard_on_commit(blob_id: int) -> None:
    # Robust: what fails here is logged and left to collect_garbage, not shown to the caller.
    transaction.on_commit(partial(discard_blobs, blob_ids=[blob_id]), robust=True)
