import uuid

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# Whoever ends a run (its worker, a reaper, who takes it back), its callback is written down by the
# very statement. Without a callback_url the condition alone is looked at.
TRIGGER = """
CREATE FUNCTION callbacks_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO callbacks_delivery (
        id, user_id, execution_id, event, url, body, state, created_at, due_at, give_up_at
    ) VALUES (
        gen_random_uuid(), NEW.owner_id, NEW.id, 'execution.ended', NEW.callback_url, '',
        'pending', now(), now(), now() + interval '1 day'
    );
    RETURN NULL;
END
$$;
CREATE TRIGGER callbacks_ended AFTER UPDATE OF status ON executions_execution FOR EACH ROW
WHEN (
    NEW.callback_url <> '' AND NEW.status IN ('finished', 'cancelled')
    AND OLD.status NOT IN ('finished', 'cancelled')
)
EXECUTE FUNCTION callbacks_ended();
"""
NO_TRIGGER = """
DROP TRIGGER callbacks_ended ON executions_execution;
DROP FUNCTION callbacks_ended();
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("executions", "0005_image_terms"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="CallbackSecret",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "data",
                    models.BinaryField(help_text="Fernet, with a key derived of BOXER_SECRET_KEY."),
                ),
                ("created_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Delivery",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("event", models.CharField(max_length=32)),
                ("url", models.CharField(max_length=2048)),
                (
                    "body",
                    models.TextField(
                        blank=True, help_text="JSON; empty until the first try of an execution's."
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("delivered", "Delivered"),
                            ("failed", "failed: given up"),
                        ],
                        default="pending",
                        max_length=9,
                    ),
                ),
                ("created_at", models.DateTimeField()),
                ("due_at", models.DateTimeField(help_text="Not tried before that.")),
                ("give_up_at", models.DateTimeField(help_text="Not tried after that.")),
                (
                    "leased_until",
                    models.DateTimeField(help_text="A worker sends it until then.", null=True),
                ),
                (
                    "message_id",
                    models.BigIntegerField(help_text="Its row in django-q2's queue.", null=True),
                ),
                (
                    "execution",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="callbacks",
                        to="executions.execution",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "deliveries",
                "permissions": [("deliver_again", "Can have callbacks delivered again")],
            },
        ),
        migrations.CreateModel(
            name="Try",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("at", models.DateTimeField()),
                ("ms", models.PositiveIntegerField(help_text="How long it took.", null=True)),
                (
                    "status",
                    models.PositiveSmallIntegerField(help_text="Of the HTTP answer.", null=True),
                ),
                (
                    "error",
                    models.TextField(blank=True, default="", help_text="Why it didn't succeed."),
                ),
                (
                    "answer",
                    models.TextField(blank=True, default="", help_text="The answer's first KiB."),
                ),
                (
                    "delivery",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="tries",
                        to="callbacks.delivery",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "tries",
                "ordering": ["id"],
            },
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("state", "pending")),
                fields=["due_at"],
                name="pending_deliveries",
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(fields=["user", "-created_at"], name="deliveries_of_a_user"),
        ),
        migrations.RunSQL(TRIGGER, NO_TRIGGER),
    ]
