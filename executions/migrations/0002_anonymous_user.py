"""The built-in user that everything belongs to while requests carry no credentials."""

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import migrations


def make(apps, schema_editor):  # noqa: ARG001 (Django's signature)
    User = apps.get_model("auth", "User")
    User.objects.get_or_create(username="anonymous", defaults={"password": make_password(None)})


class Migration(migrations.Migration):
    dependencies = [
        ("executions", "0001_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        # Going back leaves the user where it is: rows may belong to it.
        migrations.RunPython(make, migrations.RunPython.noop),
    ]
