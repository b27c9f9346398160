"""Quotas, and the usage that is counted apart from executions so that it outlives them."""

from django.conf import settings
from django.contrib.auth.models import Group
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q

from executions.models import Network


class Quota(models.Model):
    """For a user, a group or everybody; an empty field says nothing, and the next one decides."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE
    )
    group = models.OneToOneField(Group, null=True, blank=True, on_delete=models.CASCADE)
    everybody = models.BooleanField(default=False)

    runs_at_a_time = models.PositiveIntegerField(
        null=True, blank=True, help_text="Running together; what is more waits in the queue."
    )
    runs_queued = models.PositiveIntegerField(
        null=True, blank=True, help_text="Waiting beyond those that may run."
    )
    runs_an_hour = models.PositiveIntegerField(null=True, blank=True)
    cpu_secs_a_day = models.PositiveIntegerField(
        null=True, blank=True, help_text="CPU seconds of a day in UTC."
    )
    stored_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    stored_files = models.PositiveIntegerField(null=True, blank=True)

    cpu_cores = models.FloatField(null=True, blank=True, validators=[MinValueValidator(0.01)])
    memory_mb = models.PositiveIntegerField(null=True, blank=True, help_text="MiB.")
    wall_clock_secs = models.PositiveIntegerField(null=True, blank=True)
    pids_limit = models.PositiveIntegerField(null=True, blank=True)
    nofile = models.PositiveIntegerField(null=True, blank=True)

    networks = ArrayField(
        models.CharField(max_length=8, choices=Network),
        null=True,
        blank=True,
        default=None,
        help_text="Allowed networks, with commas between them.",
    )
    images = ArrayField(
        models.CharField(max_length=1024),
        null=True,
        blank=True,
        default=None,
        help_text="Patterns (* and ?) of allowed images: docker.io/library/*.",
    )
    weight = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="How many turns where one without a weight has one.",
    )
    highest_priority = models.SmallIntegerField(null=True, blank=True)
    retention_days = models.PositiveIntegerField(
        null=True, blank=True, help_text="Ended executions go so long after their end; 0: never."
    )
    retention_runs = models.PositiveIntegerField(
        null=True, blank=True, help_text="So many stay, the newest; 0: all."
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="quota_of_one",
                condition=Q(user__isnull=False, group__isnull=True, everybody=False)
                | Q(user__isnull=True, group__isnull=False, everybody=False)
                | Q(user__isnull=True, group__isnull=True, everybody=True),
                violation_error_message="Choose a user, a group or everybody: exactly one.",
            ),
            models.UniqueConstraint(
                fields=["everybody"],
                condition=Q(everybody=True),
                name="one_quota_of_everybody",
            ),
            models.CheckConstraint(name="quota_weight", condition=Q(weight__gte=1)),
        ]

    def __str__(self) -> str:
        if self.everybody:
            return "quota of everybody"
        return f"quota of {self.user or self.group}"

    def clean(self) -> None:
        """An empty field of a form says nothing; it doesn't allow nothing."""
        self.networks = self.networks or None
        self.images = self.images or None
        if self.weight == 0:
            raise ValidationError({"weight": "At least 1."})


class Usage(models.Model):
    """The row that is locked while something of a user's is admitted."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, primary_key=True, on_delete=models.CASCADE
    )

    def __str__(self) -> str:
        return f"usage of {self.user_id}"


class MinuteOfRuns(models.Model):
    """How many runs of a user under a quota were admitted in a minute."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, db_index=False)
    minute = models.DateTimeField()
    runs = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "minute"], name="one_count_a_minute")
        ]

    def __str__(self) -> str:
        return f"{self.runs} runs of {self.user_id} at {self.minute:%H:%M}"


class DayOfCpu(models.Model):
    """CPU time of a user's runs on a day in UTC.

    In several rows, so that two workers that end runs of one user don't wait for each other.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, db_index=False)
    day = models.DateField()
    slot = models.PositiveSmallIntegerField()
    cpu_ms = models.PositiveBigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "day", "slot"], name="one_sum_a_day_and_slot")
        ]

    def __str__(self) -> str:
        return f"{self.cpu_ms} ms of {self.user_id} on {self.day}"


class Turn(models.Model):
    """When, in virtual time, a user's last run began and ended: see executions/quotas/turns.py."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, primary_key=True, on_delete=models.CASCADE
    )
    began = models.FloatField(db_index=True)
    ended = models.FloatField()

    def __str__(self) -> str:
        return f"turn of {self.user_id}"
