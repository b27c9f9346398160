import django.db.models.deletion
from django.db import migrations, models

# Whoever ends a run (its worker, a reaper, who cancels it), its secrets go in the same transaction.
# For a run without secrets the condition alone is looked at.
TRIGGER = """
CREATE FUNCTION sealed_forget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM sealed_sealedenvironment WHERE execution_id = NEW.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER sealed_forget AFTER UPDATE OF status ON executions_execution FOR EACH ROW
WHEN (NEW.status IN ('finished', 'cancelled') AND NEW.env::text LIKE '%=***%')
EXECUTE FUNCTION sealed_forget();
"""
NO_TRIGGER = """
DROP TRIGGER sealed_forget ON executions_execution;
DROP FUNCTION sealed_forget();
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("executions", "0004_indexes"),
    ]

    operations = [
        migrations.CreateModel(
            name="SealedEnvironment",
            fields=[
                (
                    "execution",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="sealed",
                        serialize=False,
                        to="executions.execution",
                    ),
                ),
                (
                    "data",
                    models.BinaryField(help_text="Fernet, with a key derived of BOXER_SECRET_KEY."),
                ),
            ],
            options={
                "verbose_name": "sealed environment",
            },
        ),
        migrations.RunSQL(TRIGGER, NO_TRIGGER),
    ]
