"""The secret part of a run's environment, encrypted, for as long as the run hasn't ended."""

from django.db import models


class SealedEnvironment(models.Model):
    """`NAME=VALUE` of each name that looks like a secret's; Execution.env has `NAME=***` for it.

    A trigger of the database deletes the row in the very transaction that ends the run, whoever
    ends it (see the migration).
    """

    execution = models.OneToOneField(
        "executions.Execution", on_delete=models.CASCADE, primary_key=True, related_name="sealed"
    )
    data = models.BinaryField(help_text="Fernet, with a key derived of BOXER_SECRET_KEY.")

    class Meta:
        verbose_name = "sealed environment"

    def __str__(self) -> str:
        return f"sealed environment of {self.execution_id}"
