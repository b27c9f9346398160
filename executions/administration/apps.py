from django.apps import AppConfig


class AdministrationConfig(AppConfig):
    name = "executions.administration"
    label = "administration"
    verbose_name = "Administration"
