"""Examinations and what they found."""

from django.conf import settings
from django.db import models


class Examination(models.Model):
    """One look of the doctor at a host."""

    host = models.CharField(max_length=255, blank=True, default="", help_text="Host name.")
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.SET_NULL,
        help_text="Nobody: the start of the service.",
    )
    asked_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    quick = models.BooleanField(default=False)
    error = models.TextField(blank=True, default="", help_text="Why it didn't come to its end.")

    class Meta:
        ordering = ["-id"]
        permissions = [("examine", "Can have a host examined")]

    def __str__(self) -> str:
        return f"examination {self.pk} of {self.host or 'a host'}"


class ExaminationFinding(models.Model):
    """One promise: whether it was kept, and what showed it."""

    examination = models.ForeignKey(Examination, on_delete=models.CASCADE, related_name="findings")
    name = models.CharField(max_length=32)
    promise = models.TextField()
    state = models.CharField(max_length=8)
    detail = models.TextField(blank=True, default="")
    ms = models.PositiveIntegerField()

    class Meta:
        ordering = ["id"]
        verbose_name = "finding"

    def __str__(self) -> str:
        return f"{self.name}: {self.state}"
