"""Entries, the head of their chain, and failed logins that are still counted."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Entry(models.Model):
    """Something that somebody did. Never changed or deleted: triggers refuse it.

    `seq` and `hash` are null for a moment, until it is chained to the one before it. Users are
    named by their numbers alone: entries outlive them.
    """

    at = models.DateTimeField(db_default=Now(), db_index=True)
    user_id = models.BigIntegerField(null=True, help_text="Empty: no account did it.")
    username = models.CharField(max_length=150, blank=True, db_default="")
    token = models.CharField(max_length=150, blank=True, db_default="", help_text="Its name.")
    address = models.CharField(max_length=64, blank=True, db_default="")
    verb = models.CharField(max_length=32)
    object_type = models.CharField(max_length=64)
    object_id = models.CharField(max_length=200)
    owner_id = models.BigIntegerField(
        null=True, help_text="Whose object it is, where it is somebody else's."
    )
    details = models.JSONField(db_default={})
    seq = models.BigIntegerField(null=True, unique=True, help_text="Its place in the chain.")
    hash = models.BinaryField(max_length=32, null=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "entries"
        default_permissions = ("view",)
        indexes = [
            models.Index(fields=["id"], condition=Q(seq__isnull=True), name="unchained_entries"),
            models.Index(fields=["verb", "-id"], name="entries_by_verb"),
            models.Index(fields=["user_id", "-id"], name="entries_of_a_user"),
            models.Index(fields=["object_id", "-id"], name="entries_about_an_object"),
            models.Index(
                fields=["-id"], condition=Q(owner_id__isnull=False), name="entries_about_others"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.username or '-'} {self.verb} {self.object_type} {self.object_id}"


class Head(models.Model):
    """The last link of the chain: one row. It shows when the newest entries were taken away."""

    id = models.PositiveSmallIntegerField(primary_key=True)
    seq = models.BigIntegerField()
    hash = models.BinaryField(max_length=32)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.seq}:{bytes(self.hash).hex()}"


class Failure(models.Model):
    """Failed logins of one minute, one name and one address; they become one entry."""

    minute = models.DateTimeField()
    verb = models.CharField(max_length=32)
    address = models.CharField(max_length=64, blank=True)
    username = models.CharField(max_length=150, blank=True)
    times = models.PositiveBigIntegerField()

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["minute", "verb", "address", "username"], name="one_row_per_failure"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.verb} {self.username} {self.address}: {self.times}"
