"""Which images this host has, for everybody to see: told by whoever pulls, and by the keeper."""

import hashlib
import os
import socket
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from executions.image_policy.models import CachedImage
from executions.image_store import image_store
from executions.sandbox.images import Image, ImageStore, StoredImage

USE_SECS = 60.0
"""How often the times of last use are told anew, where nothing came or went."""


@cache
def _host_name(home: Path) -> str:
    return f"{socket.gethostname()}:{hashlib.sha256(os.fsencode(home)).hexdigest()[:8]}"


def host_name() -> str:
    """This host and home, the same after every start."""
    return _host_name(settings.BOXER_HOME)


def pulled(*, image: Image, by: str, rule: str) -> None:
    """An image has come: who brought it is kept from the first time on."""
    row, made = CachedImage.objects.get_or_create(
        host=host_name(),
        digest=image.digest,
        defaults={
            "references": [image.reference],
            "size": image.size,
            "last_used": timezone.now(),
            "pulled_by": by,
            "rule": rule,
        },
    )
    if not made:
        # The keeper saw it first, or it was here before and has come again.
        mine = CachedImage.objects.filter(pk=row.pk)
        mine.filter(Q(pulled_by="") | Q(state=CachedImage.State.REMOVED)).update(
            pulled_by=by, rule=rule
        )
        mine.update(state=CachedImage.State.HERE, size=image.size, last_used=timezone.now())


class Inventory:
    """Tells the database what an image store has; cheap when nothing has changed."""

    def __init__(self, store: ImageStore | None = None) -> None:
        self._store = store or image_store()
        self._seen: object = None
        self._told = float("-inf")

    def tell(self) -> bool:
        """Whether there was anything to tell."""
        now = self._store.changed()
        if now == self._seen and time.monotonic() - self._told < USE_SECS:
            return False
        write(self._store.list_images())
        self._seen, self._told = now, time.monotonic()
        return True


@transaction.atomic
def write(images: list[StoredImage]) -> None:
    """Make the rows of this host say what is here."""
    host = host_name()
    CachedImage.objects.bulk_create(
        [
            CachedImage(
                host=host,
                digest=image.digest,
                references=list(image.references),
                size=image.size,
                state=CachedImage.State.HERE,
                last_used=datetime.fromtimestamp(image.last_used, UTC),
            )
            for image in images
        ],
        update_conflicts=True,
        unique_fields=["host", "digest"],
        update_fields=["references", "size", "state", "last_used"],
    )
    CachedImage.objects.filter(host=host, state=CachedImage.State.HERE).exclude(
        digest__in=[image.digest for image in images]
    ).update(state=CachedImage.State.REMOVED, references=[])
