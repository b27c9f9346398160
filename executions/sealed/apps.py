from django.apps import AppConfig


class SealedConfig(AppConfig):
    name = "executions.sealed"
    label = "sealed"
    verbose_name = "Sealed environments"
    default_auto_field = "django.db.models.BigAutoField"
