"""Deliveries, each try of them, and the secrets that they are signed with."""

import uuid
from typing import Self

from django.conf import settings
from django.db import models
from django.db.models import Q

from executions.models import Execution


class State(models.TextChoices):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed", "failed: given up"


class CallbackSecret(models.Model):
    """What a user's callbacks are signed with; made when it is first needed."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="+"
    )
    data = models.BinaryField(help_text="Fernet, with a key derived of BOXER_SECRET_KEY.")
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"callback secret of user {self.user_id}"


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def of_execution(self, execution: Execution) -> Self:
        """Those that tell of its end, with their tries."""
        return self.filter(execution=execution).order_by("created_at").prefetch_related("tries")


class Delivery(models.Model):
    """Something to be told to a URL until it was told, or a day has passed.

    The row for the end of an execution is made by a trigger of the database, in the transaction
    that ends it (see the migration).
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    execution = models.ForeignKey(
        Execution, null=True, on_delete=models.CASCADE, related_name="callbacks"
    )
    event = models.CharField(max_length=32)
    url = models.CharField(max_length=2048)
    body = models.TextField(
        blank=True, help_text="JSON; empty until the first try of an execution's."
    )
    state = models.CharField(max_length=9, choices=State, default=State.PENDING)
    created_at = models.DateTimeField()
    due_at = models.DateTimeField(help_text="Not tried before that.")
    give_up_at = models.DateTimeField(help_text="Not tried after that.")
    leased_until = models.DateTimeField(null=True, help_text="A worker sends it until then.")
    message_id = models.BigIntegerField(null=True, help_text="Its row in django-q2's queue.")

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "deliveries"
        permissions = [("deliver_again", "Can have callbacks delivered again")]
        indexes = [
            models.Index(
                fields=["due_at"], condition=Q(state="pending"), name="pending_deliveries"
            ),
            models.Index(fields=["user", "-created_at"], name="deliveries_of_a_user"),
        ]

    def __str__(self) -> str:
        return str(self.id)


class Try(models.Model):
    """One request, or the attempt at one. `ms` is null while it goes on."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="tries")
    at = models.DateTimeField()
    ms = models.PositiveIntegerField(null=True, help_text="How long it took.")
    status = models.PositiveSmallIntegerField(null=True, help_text="Of the HTTP answer.")
    error = models.TextField(blank=True, default="", help_text="Why it didn't succeed.")
    answer = models.TextField(blank=True, default="", help_text="The answer's first KiB.")

    class Meta:
        ordering = ["id"]
        verbose_name_plural = "tries"

    def __str__(self) -> str:
        return f"try {self.pk} of {self.delivery_id}"
