"""Blobs (contents, stored once) and stored files (an owner's path to one of them)."""

from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db import models
from django.db.models import Q

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


class Blob(models.Model):
    """Contents of a file, addressed by their sha256 and held by the default storage under `name`.

    The row comes before the object and goes after it, so a crash leaves a row that tells what to
    clean up, never an object that nobody knows: writing → ready → doomed → gone. Only ready blobs
    may be referred to; a doomed one never comes back (the same contents get a new row and name).
    """

    class State(models.TextChoices):
        WRITING = "writing"
        READY = "ready"
        DOOMED = "doomed"

    sha256 = models.CharField(max_length=64)
    size = models.PositiveBigIntegerField(help_text="Bytes.")
    name = models.CharField(max_length=200, unique=True, help_text="Object in the storage.")
    state = models.CharField(max_length=8, choices=State, default=State.WRITING)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["sha256"], condition=Q(state="ready"), name="one_ready_blob_per_content"
            ),
        ]
        indexes = [
            models.Index(
                fields=["state", "created_at"], condition=~Q(state="ready"), name="unready_blobs"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.sha256[:12]} ({self.size} bytes)"


class StoredFileQuerySet(models.QuerySet["StoredFile"]):
    def visible_to(self, user: "AbstractBaseUser | AnonymousUser") -> Self:
        """The files that `user` may read and use: their own."""
        return self.filter(owner_id=user.pk)


class StoredFile(models.Model):
    """An owner's path (safe and relative, see filestore/paths.py) and the blob it means."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    path = models.CharField(max_length=4096)
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT)
    created_at = models.DateTimeField(auto_now=True)

    objects = StoredFileQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "path"], name="one_file_per_owner_and_path"),
        ]

    def __str__(self) -> str:
        return self.path
