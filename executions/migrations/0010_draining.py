from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("executions", "0009_built_inputs")]

    operations = [
        migrations.AddField(
            model_name="workerhost",
            name="draining",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="It takes no new run; what it runs goes on.",
            ),
        ),
    ]
