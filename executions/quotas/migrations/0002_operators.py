"""Operators may make and change quotas; auditors may see them."""

from django.db import migrations

GRANTED = {
    "Operators": ("view", "add", "change", "delete"),
    "Auditors": ("view",),
}


def grant(apps, schema_editor):
    """Django makes permissions only after all migrations: those that aren't there are made here."""
    alias = schema_editor.connection.alias
    types = apps.get_model("contenttypes", "ContentType").objects.using(alias)
    content_type, _ = types.get_or_create(app_label="quotas", model="quota")
    permissions = apps.get_model("auth", "Permission").objects.using(alias)
    groups = apps.get_model("auth", "Group").objects.using(alias)
    for name, actions in GRANTED.items():
        group, _ = groups.get_or_create(name=name)
        for action in actions:
            permission, _ = permissions.get_or_create(
                content_type=content_type,
                codename=f"{action}_quota",
                defaults={"name": f"Can {action} quota"},
            )
            group.permissions.add(permission)


class Migration(migrations.Migration):
    dependencies = [
        ("quotas", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        # Going back takes the permissions with their model; the groups may have members.
        migrations.RunPython(grant, migrations.RunPython.noop),
    ]
