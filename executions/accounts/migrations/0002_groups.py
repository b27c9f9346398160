"""Operators, Auditors (read only) and Reviewers, with what belongs to runs, files and accounts."""

from django.conf import settings
from django.db import migrations

from executions.accounts.groups import AUDITORS, OPERATORS, REVIEWERS, granted

SEEING = ("executions.view_all", "executions.view_execution")
FILES = ("filestore.view_all", "filestore.view_storedfile")
PEOPLE = ("auth.view_user", "auth.view_group", "accounts.view_token")

operators = granted(
    OPERATORS,
    *SEEING,
    *FILES,
    *PEOPLE,
    "executions.manage_all",
    "executions.use_host_network",
    "filestore.delete_storedfile",
    "accounts.delete_token",
)
auditors = granted(AUDITORS, *SEEING, *FILES, *PEOPLE)
reviewers = granted(REVIEWERS, *SEEING)


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
        ("filestore", "0002_view_all"),
        ("executions", "0005_image_terms"),
        ("contenttypes", "0002_remove_content_type_name"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]

    operations = [
        # Going back leaves the groups: users may be in them.
        migrations.RunPython(step, migrations.RunPython.noop)
        for step in (operators, auditors, reviewers)
    ]
