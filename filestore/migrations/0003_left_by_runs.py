import django.db.models.functions.text
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # an index of a table that is written to meanwhile

    dependencies = [("filestore", "0002_view_all")]

    operations = [
        AddIndexConcurrently(
            model_name="storedfile",
            index=models.Index(
                models.F("owner"),
                django.db.models.functions.text.Left("path", 34),
                condition=models.Q(("path__startswith", "output/")),
                name="files_left_by_runs",
            ),
        ),
    ]
