"""Blobs (contents, stored once) and stored files (an owner's path to one of them)."""

import hashlib
from datetime import datetime
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Left

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


class BlobQuerySet(models.QuerySet["Blob"]):
    def unreferenced(self) -> Self:
        """Blobs that no row of any model points at, whichever apps those models live in."""
        found = self
        for relation in Blob._meta.related_objects:  # noqa: SLF001 - Django documents _meta
            everything = relation.related_model._base_manager  # noqa: SLF001 - and this one
            pointing = everything.filter(**{relation.field.name: OuterRef("pk")})
            found = found.filter(~Exists(pointing))
        return found

    def collectable(self, now: datetime) -> Self:
        """Ready ones that nothing refers to and nobody is about to refer to."""
        unheld = Q(kept_until__isnull=True) | Q(kept_until__lt=now)
        return self.filter(unheld, state=Blob.State.READY).unreferenced()


class Blob(models.Model):
    """Contents of a file, addressed by their sha256 and held by the default storage under `name`.

    The row comes before the object and goes after it, so a crash leaves a row that tells what to
    clean up, never an object that nobody knows: writing → ready → doomed → gone. Only ready blobs
    may be referred to; a doomed one never comes back (the same contents get a new row and name).
    Whoever adds a reference holds the row's share lock meanwhile (filestore/blobs.py).
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
    kept_until = models.DateTimeField(
        null=True, help_text="Stays until then without a reference: one is to come."
    )

    objects = BlobQuerySet.as_manager()

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


# As long as `output/boxer-5f0c7a1e9b3d4c6f8a21/`.
_DIRECTORY = Left("path", 34)


class StoredFileQuerySet(models.QuerySet["StoredFile"]):
    def visible_to(self, user: "AbstractBaseUser | AnonymousUser") -> Self:
        """The files that `user` may see: their own, or everybody's. In runs all use their own."""
        if user.has_perm("filestore.view_all"):  # type: ignore[union-attr]  # of PermissionsMixin
            return self
        return self.filter(owner_id=user.pk)

    def at(self, *paths: str) -> Self:
        """Those at exactly these (clean) paths, by the index."""
        return self.filter(path_sha256__in=[path_key(path) for path in paths])

    def left_by_run(self, directory: str) -> Self:
        """Those below the directory of one run's output, by an index of their own."""
        below = self.filter(path__startswith="output/").annotate(directory=_DIRECTORY)
        return below.filter(directory=directory)


def path_key(path: str) -> bytes:
    """What `path_sha256` holds for this path."""
    return hashlib.sha256(path.encode()).digest()


class StoredFile(models.Model):
    """An owner's path (safe and relative, see filestore/paths.py) and the blob it means."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    path = models.CharField(max_length=4096)
    # A B-tree takes at most 2704 bytes per row and a path may have 4096, so its hash is indexed.
    # Casting text to bytea reads backslashes as escapes: doubled they stand for themselves.
    path_sha256 = models.GeneratedField(
        expression=models.Func(
            "path", template=r"sha256(replace(%(expressions)s, '\', '\\')::bytea)"
        ),
        output_field=models.BinaryField(max_length=32),
        db_persist=True,
    )
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT)
    created_at = models.DateTimeField(auto_now=True)

    objects = StoredFileQuerySet.as_manager()

    class Meta:
        permissions = [("view_all", "Can see everybody's files")]
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "path_sha256"], name="one_file_per_owner_and_path"
            ),
        ]
        indexes = [
            models.Index(
                "owner",
                _DIRECTORY,
                condition=Q(path__startswith="output/"),
                name="files_left_by_runs",
            ),
        ]

    def __str__(self) -> str:
        return self.path
