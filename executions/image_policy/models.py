"""Rules for images, pinned tags, the images of each host, and prefetches of more."""

import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q

from executions.sandbox.references import DIGEST, REFERENCE_LIMIT, BadReference, parse

PLATFORM = r"[a-z0-9]+/[a-z0-9]+"


class Action(models.TextChoices):
    """What a rule says of the images that it matches."""

    ALLOW = "allow"
    CACHED = "cached", "cached: allow what is here already, pull nothing"
    REFUSE = "refuse"


def check_pattern(pattern: str) -> None:
    """Raises ValidationError for a pattern that no whole reference could match."""
    if not pattern.isascii() or not pattern.isprintable() or " " in pattern:
        raise ValidationError("Must consist of printable ASCII without blanks.")
    if "/" not in pattern and not pattern.startswith("*"):
        raise ValidationError("Must match whole references, like docker.io/library/python:* or *.")


class Rule(models.Model):
    """The first that matches image and user decides; where none does, the image is allowed."""

    name = models.CharField(max_length=64, unique=True, help_text="Told to whom it refuses.")
    priority = models.SmallIntegerField(default=0, help_text="Higher ones are looked at first.")
    pattern = models.CharField(
        max_length=REFERENCE_LIMIT,
        validators=[check_pattern],
        help_text="A glob over whole references, like docker.io/library/python:*",
    )
    action = models.CharField(max_length=8, choices=Action)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE,
        help_text="Whom it concerns; everybody without user and group.",
    )  # fmt: skip
    group = models.ForeignKey("auth.Group", null=True, blank=True, on_delete=models.CASCADE)
    max_bytes = models.PositiveBigIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="The largest image it allows, packed and unpacked.",
    )
    platform = models.CharField(
        max_length=64,
        blank=True,
        default="",
        validators=[RegexValidator(rf"^{PLATFORM}\Z", "Must be like linux/amd64.")],
        help_text="The only platform it allows, like linux/amd64.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-priority", "id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(user__isnull=True) | Q(group__isnull=True),
                name="a_rule_for_a_user_or_a_group",
                violation_error_message="A rule is for a user or a group, not for both.",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Pin(models.Model):
    """A tag that means one digest, whatever its registry says, until somebody changes this row."""

    reference = models.CharField(
        max_length=REFERENCE_LIMIT, unique=True, help_text="With its tag, like python:3.12-slim"
    )
    digest = models.CharField(
        max_length=71, validators=[RegexValidator(rf"^{DIGEST.pattern}\Z", "Must be sha256:…")]
    )

    class Meta:
        ordering = ["reference"]

    def __str__(self) -> str:
        return f"{self.reference} → {self.digest[:19]}"

    def clean(self) -> None:
        try:
            parsed = parse(self.reference)
        except BadReference as error:
            raise ValidationError({"reference": str(error)}) from None
        if parsed.digest:
            raise ValidationError({"reference": "Must be a tag: a digest is pinned as it is."})
        self.reference = str(parsed)


class CachedImage(models.Model):
    """An image on one host, as that host told last."""

    class State(models.TextChoices):
        HERE = "here"
        REMOVED = "removed"

    host = models.CharField(max_length=255, help_text="Host name and home.")
    digest = models.CharField(max_length=71)
    references = ArrayField(models.CharField(max_length=REFERENCE_LIMIT), default=list)
    size = models.PositiveBigIntegerField(help_text="Bytes, unpacked.")
    state = models.CharField(max_length=8, choices=State, default=State.HERE)
    first_seen = models.DateTimeField(auto_now_add=True)
    last_used = models.DateTimeField()
    pulled_by = models.CharField(
        max_length=150, blank=True, default="", help_text="Whose run or prefetch brought it first."
    )
    rule = models.CharField(
        max_length=64,
        blank=True,
        default="",
        help_text="The rule that allowed that; none if empty.",
    )

    class Meta:
        ordering = ["-last_used"]
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(fields=["host", "digest"], name="one_row_per_host_and_image"),
        ]

    def __str__(self) -> str:
        return f"{' '.join(self.references) or self.digest} on {self.host}"


class Prefetch(models.Model):
    """An image that somebody has brought in ahead of its runs, by a worker."""

    class State(models.TextChoices):
        QUEUED = "queued"
        RESOLVING = "resolving"
        DOWNLOADING = "downloading"
        UNPACKING = "unpacking"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    image = models.CharField(max_length=REFERENCE_LIMIT, help_text="As it was asked for.")
    reference = models.CharField(
        max_length=REFERENCE_LIMIT + 80, editable=False, help_text="What is pulled: whole, pinned."
    )
    terms = models.JSONField(null=True, editable=False)
    state = models.CharField(max_length=11, choices=State, default=State.QUEUED, editable=False)
    digest = models.CharField(max_length=71, blank=True, default="", editable=False)
    bytes_done = models.PositiveBigIntegerField(default=0, editable=False)
    bytes_total = models.PositiveBigIntegerField(
        null=True, editable=False, help_text="To download, as the manifest claims."
    )
    layers_done = models.PositiveSmallIntegerField(default=0, editable=False)
    layers_total = models.PositiveSmallIntegerField(null=True, editable=False)
    error = models.TextField(blank=True, default="", editable=False)
    error_code = models.CharField(max_length=32, blank=True, default="", editable=False)
    requested_by = models.CharField(max_length=150, editable=False)
    message_id = models.BigIntegerField(null=True, editable=False, help_text="In the queue.")
    worker_host = models.UUIDField(null=True, editable=False, help_text="A start of workers.")
    worker = models.CharField(max_length=64, blank=True, default="", editable=False)
    host = models.CharField(max_length=255, blank=True, default="", editable=False)
    requested_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["-requested_at"]
        default_permissions = ("view", "add")
        permissions = [("cancel_prefetch", "Can cancel prefetches")]
        verbose_name_plural = "prefetches"
        indexes = [
            models.Index(
                fields=["state"],
                condition=Q(state__in=["queued", "resolving", "downloading", "unpacking"]),
                name="unfinished_prefetches",
            ),
            models.Index(fields=["-requested_at"], name="prefetches_newest_first"),
        ]

    def __str__(self) -> str:
        return f"{self.image} ({self.state})"


BUSY = (Prefetch.State.RESOLVING, Prefetch.State.DOWNLOADING, Prefetch.State.UNPACKING)
UNFINISHED = (Prefetch.State.QUEUED, *BUSY)
