from django.apps import AppConfig


class DoctorConfig(AppConfig):
    name = "executions.doctor"
    label = "doctor"
    verbose_name = "Doctor"
    default_auto_field = "django.db.models.BigAutoField"
