"""Contents that nothing refers to any more: found, doomed, and removed with their objects.

Dooming takes two statements. The first locks candidates; whoever adds a reference holds a share
lock on the blob until it commits, so none is being added from then on. The second sees what was
committed before the lock was had (READ COMMITTED: a fresh snapshot) and dooms only what still has
no reference. The object is deleted outside of the transaction, the row after the object.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta

from django.core.files.storage import default_storage
from django.db import transaction
from django.utils import timezone

from filestore.models import Blob

logger = logging.getLogger(__name__)

WRITING_FOR_AT_MOST = timedelta(hours=1)


def collect_garbage(*, limit: int = 100) -> int:
    """Removes up to `limit` blobs, among them what crashes left behind. Returns how many went."""
    now = timezone.now()
    doomed = Blob.objects.filter(state=Blob.State.DOOMED)
    stale = Blob.objects.filter(
        state=Blob.State.WRITING, created_at__lt=now - WRITING_FOR_AT_MOST
    ).order_by("pk")
    Blob.objects.filter(pk__in=stale[:limit], state=Blob.State.WRITING).update(
        state=Blob.State.DOOMED
    )
    unused = Blob.objects.collectable(now).order_by("pk")[:limit]
    _doom(list(unused.values_list("pk", flat=True)), wait=False)
    return _remove(doomed.order_by("pk")[:limit])


def discard_blobs(*, blob_ids: Sequence[int]) -> int:
    """Removes those of `blob_ids` that nothing refers to, now. Returns how many went.

    For whoever has just let go of them. Not to be called inside a transaction: objects don't come
    back when it rolls back.
    """
    doomed = _doom(sorted(set(blob_ids)), wait=False)
    # Another's lock is no reason to leave them: that one may let go without looking here again.
    # One at a time, since waiting for a lock while holding others is how deadlocks begin.
    left = Blob.objects.collectable(timezone.now()).filter(pk__in=blob_ids).exclude(pk__in=doomed)
    for pk in list(left.values_list("pk", flat=True)):
        doomed += _doom([pk], wait=True)
    return _remove(Blob.objects.filter(pk__in=doomed, state=Blob.State.DOOMED))


def abandon(blob: Blob) -> None:
    """Gives up a blob that its writer didn't get ready; one that is ready stays."""
    mine = Blob.objects.filter(pk=blob.pk, state=Blob.State.WRITING)
    mine.update(state=Blob.State.DOOMED)
    if not Blob.objects.filter(pk=blob.pk, state=Blob.State.READY).exists():
        # Without a row too: it was taken for dead, and wrote its object when that was cleared away.
        _remove([blob])


def _doom(blob_ids: Sequence[int], *, wait: bool) -> list[int]:
    """Dooms those that are collectable and returns them; without `wait`, skips locked ones."""
    if not blob_ids:
        return []
    with transaction.atomic(durable=True):
        rows = Blob.objects.filter(pk__in=blob_ids, state=Blob.State.READY).order_by("pk")
        locked = list(rows.select_for_update(skip_locked=not wait).values_list("pk", flat=True))
        unused = Blob.objects.filter(pk__in=locked).collectable(timezone.now())
        doomed = list(unused.values_list("pk", flat=True))
        Blob.objects.filter(pk__in=doomed).update(state=Blob.State.DOOMED)
    return doomed


def _remove(doomed: Iterable[Blob]) -> int:
    """Deletes objects and rows; where the storage refuses, the row stays and is tried again."""
    removed = 0
    for blob in doomed:
        try:
            default_storage.delete(blob.name)  # A missing object is fine with every storage.
        except Exception:
            logger.exception("object %s was not deleted; it is tried again later", blob.name)
            continue
        removed += Blob.objects.filter(pk=blob.pk, state=Blob.State.DOOMED).delete()[0]
    return removed
