"""What the lists and figures of the admin are found by."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # indexes of a table that is written to meanwhile

    dependencies = [("executions", "0007_turns")]

    operations = [
        AddIndexConcurrently(
            model_name="execution",
            index=models.Index(fields=["created_at"], name="executions_by_time"),
        ),
        AddIndexConcurrently(
            model_name="execution",
            index=models.Index(
                condition=models.Q(("status__in", ["finished", "cancelled"])),
                fields=["outcome", "-id"],
                name="executions_by_outcome",
            ),
        ),
    ]
