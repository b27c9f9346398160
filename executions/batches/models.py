"""Batches with their cases: a case is one run, and what it is expected to print."""

import secrets
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db import models
from django.db.models import Q

from executions.models import Execution
from filestore.models import Blob

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


def new_batch_id() -> str:
    return f"batch-{secrets.token_hex(10)}"


class Phase(models.TextChoices):
    """Where the cases of a batch are, as a whole; from `queued` on each has its execution."""

    BUILDING = "building", "building: the entrypoint hasn't ended"
    QUEUED = "queued"
    SKIPPED = "skipped", "skipped: the cases are never started"
    CANCELLED = "cancelled", "cancelled before the cases were queued"


class Compare(models.TextChoices):
    EXACT = "exact"
    TRIM = "trim", "trim: without space at the end of lines and of the whole"
    REGEX = "regex", "regex: Python's, of the whole"


class Verdict(models.TextChoices):
    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    ERROR = "error"


class BatchQuerySet(models.QuerySet["Batch"]):
    def visible_to(self, user: "AbstractBaseUser | AnonymousUser") -> Self:
        """The batches that `user` may see: their own, or everybody's."""
        if user.has_perm("executions.view_all"):  # type: ignore[union-attr]  # of PermissionsMixin
            return self
        return self.filter(owner_id=user.pk)


class Batch(models.Model):
    """Runs that were asked for together."""

    batch_id = models.CharField(max_length=32, unique=True, default=new_batch_id, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    created_at = models.DateTimeField(auto_now_add=True)
    phase = models.CharField(max_length=10, choices=Phase)
    entrypoint = models.ForeignKey(
        Execution, null=True, on_delete=models.SET_NULL, related_name="batch_built"
    )
    build_dir = models.CharField(
        max_length=255, help_text="Where the cases find what the entrypoint left in /output."
    )
    error = models.TextField(blank=True, default="", help_text="Why the cases don't start.")
    asked_by = models.JSONField(help_text="Who the audit log names for the cases' submissions.")
    not_before = models.DateTimeField(null=True, help_text="When queueing is tried again.")

    objects = BatchQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "batches"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["owner", "-id"], name="batches_of_an_owner"),
            models.Index(fields=["id"], condition=Q(phase="building"), name="building_batches"),
        ]

    def __str__(self) -> str:
        return self.batch_id


class Case(models.Model):
    """One run of a batch; `expected` is never given to a sandbox."""

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="cases", db_index=False)
    number = models.PositiveSmallIntegerField(help_text="From 0, as they were asked for.")
    execution = models.OneToOneField(
        Execution, null=True, on_delete=models.SET_NULL, related_name="case"
    )
    request = models.BinaryField(null=True, help_text="Encrypted, until it is queued.")
    expected = models.TextField(null=True)  # noqa: DJ001 (that nothing may be printed is another)
    compare = models.CharField(max_length=5, choices=Compare, default=Compare.EXACT)
    verdict = models.CharField(max_length=13, choices=Verdict, blank=True, default="")
    remark = models.CharField(max_length=200, blank=True, default="", help_text="On the verdict.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["batch", "number"], name="one_case_of_a_number")
        ]

    def __str__(self) -> str:
        return f"{self.batch_id}/{self.number}"


class HeldInput(models.Model):
    """Contents that cases will be given once they are queued."""

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="held")
    path = models.CharField(max_length=4096)
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT)

    def __str__(self) -> str:
        return self.path
