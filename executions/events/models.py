"""Who watches, and what a watched run has printed so far; both go soon after it has ended."""

from django.db import models


class Watch(models.Model):
    """Somebody watches, or has watched, a run that hadn't ended: its worker publishes output."""

    execution = models.OneToOneField(
        "executions.Execution", on_delete=models.CASCADE, primary_key=True, related_name="watch"
    )
    since = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"watch of {self.execution_id}"


class Chunk(models.Model):
    """A piece of what a run printed; `position` counts the bytes of both streams before it."""

    watch = models.ForeignKey(
        Watch, on_delete=models.CASCADE, related_name="chunks", db_index=False
    )
    position = models.BigIntegerField()
    stream = models.SmallIntegerField(help_text="0 for stdout, 1 for stderr.")
    data = models.BinaryField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["watch", "position"], name="one_chunk_per_position")
        ]

    def __str__(self) -> str:
        return f"{self.watch_id}:{self.position}"
