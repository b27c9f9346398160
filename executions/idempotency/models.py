"""What a request with an Idempotency-Key has made; forgotten a day later."""

from django.conf import settings
from django.db import models


class Key(models.Model):
    """One user's key; its row commits together with what it stands for."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, db_index=False)
    key = models.CharField(max_length=255)
    fingerprint = models.BinaryField(max_length=32, help_text="SHA-256 of the request.")
    created_at = models.DateTimeField(db_index=True)
    made = models.CharField(max_length=64, help_text="Id of what the request has made.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "key"], name="one_key_of_an_owner")]

    def __str__(self) -> str:
        return self.key
