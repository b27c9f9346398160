"""Operators and Auditors see in the admin what there is to operate; Operators act on it."""

from django.db import migrations

from executions.accounts.groups import AUDITORS, OPERATORS, granted

SEEING = (
    "executions.view_workerhost",
    "doctor.view_examination",
    "callbacks.view_delivery",
    "filestore.view_blob",
)
DOING = ("doctor.examine", "callbacks.deliver_again")


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("accounts", "0002_groups"),
        ("callbacks", "0001_initial"),
        ("doctor", "0001_initial"),
        ("executions", "0008_lists"),
    ]

    operations = [
        # Going back leaves the groups as they are: users may be in them.
        migrations.RunPython(granted(OPERATORS, *SEEING, *DOING), migrations.RunPython.noop),
        migrations.RunPython(granted(AUDITORS, *SEEING), migrations.RunPython.noop),
    ]
