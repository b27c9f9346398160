"""Operators handle rules, pins and prefetches; Auditors see them, and the audit log."""

from django.db import migrations

PERMISSIONS = {
    # group: (app, model, codename, name)
    "Operators": (
        ("image_policy", "rule", "view_rule", "Can view rule"),
        ("image_policy", "rule", "add_rule", "Can add rule"),
        ("image_policy", "rule", "change_rule", "Can change rule"),
        ("image_policy", "rule", "delete_rule", "Can delete rule"),
        ("image_policy", "pin", "view_pin", "Can view pin"),
        ("image_policy", "pin", "add_pin", "Can add pin"),
        ("image_policy", "pin", "change_pin", "Can change pin"),
        ("image_policy", "pin", "delete_pin", "Can delete pin"),
        ("image_policy", "cachedimage", "view_cachedimage", "Can view cached image"),
        ("image_policy", "prefetch", "view_prefetch", "Can view prefetch"),
        ("image_policy", "prefetch", "add_prefetch", "Can add prefetch"),
        ("image_policy", "prefetch", "cancel_prefetch", "Can cancel prefetches"),
        ("audit", "entry", "view_entry", "Can view entry"),
    ),
    "Auditors": (
        ("image_policy", "rule", "view_rule", "Can view rule"),
        ("image_policy", "pin", "view_pin", "Can view pin"),
        ("image_policy", "cachedimage", "view_cachedimage", "Can view cached image"),
        ("image_policy", "prefetch", "view_prefetch", "Can view prefetch"),
        ("audit", "entry", "view_entry", "Can view entry"),
    ),
}


def grant(apps, _schema_editor):
    """Django makes permissions after all migrations, so those that aren't there yet are made."""
    group_model = apps.get_model("auth", "Group")
    permission_model = apps.get_model("auth", "Permission")
    types = apps.get_model("contenttypes", "ContentType").objects
    for group_name, wanted in PERMISSIONS.items():
        group, _ = group_model.objects.get_or_create(name=group_name)
        for app, model, codename, name in wanted:
            kind, _ = types.get_or_create(app_label=app, model=model)
            permission, _ = permission_model.objects.get_or_create(
                codename=codename, content_type=kind, defaults={"name": name}
            )
            group.permissions.add(permission)


def withdraw(apps, _schema_editor):
    """The groups stay: people may be in them."""
    permissions = apps.get_model("auth", "Permission").objects
    for group in apps.get_model("auth", "Group").objects.filter(name__in=PERMISSIONS):
        for app, model, codename, _ in PERMISSIONS[group.name]:
            group.permissions.remove(
                *permissions.filter(
                    codename=codename, content_type__app_label=app, content_type__model=model
                )
            )


class Migration(migrations.Migration):
    dependencies = [
        ("image_policy", "0002_prefetch_workers"),
        ("audit", "0002_append_only"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [migrations.RunPython(grant, withdraw)]
