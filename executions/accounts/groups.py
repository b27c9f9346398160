"""The three ready groups, for migrations: each app gives them what belongs to it.

    operations = [migrations.RunPython(granted("Operators", "quotas.change_quota"), noop)]

Such a migration depends on `("accounts", "0002_groups")` and on what makes the permission's model.
"""

from collections.abc import Callable
from typing import Any

OPERATORS = "Operators"
AUDITORS = "Auditors"
REVIEWERS = "Reviewers"


def granted(group: str, *permissions: str) -> Callable[[Any, Any], None]:
    """For RunPython: gives the group permissions named `app.codename`, as often as it is called."""

    def grant(apps: Any, schema_editor: Any) -> None:
        alias = schema_editor.connection.alias
        made, _ = apps.get_model("auth", "Group").objects.using(alias).get_or_create(name=group)
        for permission in permissions:
            made.permissions.add(_permission(apps, alias, permission))

    return grant


def _permission(apps: Any, alias: str, permission: str) -> Any:
    """Django makes permissions only after all migrations; one that isn't there yet is made here."""
    label, _, codename = permission.partition(".")
    model, name = _described(apps, label, codename)
    types = apps.get_model("contenttypes", "ContentType").objects.using(alias)
    content_type, _ = types.get_or_create(app_label=label, model=model)
    permissions = apps.get_model("auth", "Permission").objects.using(alias)
    return permissions.get_or_create(
        content_type=content_type, codename=codename, defaults={"name": name}
    )[0]


def _described(apps: Any, label: str, codename: str) -> tuple[str, str]:
    """The model that a permission belongs to, and its name. Raises LookupError."""
    for model in apps.get_app_config(label).get_models():
        options = model._meta  # noqa: SLF001 - Django documents _meta
        for known, name in options.permissions:
            if known == codename:
                return options.model_name, name
        action, _, of = codename.partition("_")
        if of == options.model_name and action in {"view", "add", "change", "delete"}:
            return options.model_name, f"Can {action} {options.verbose_name_raw}"
    raise LookupError(f"no model of {label} has a permission {codename}")
