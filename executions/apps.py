"""Executions: what was asked to run, where it stands, and what became of it."""

from django.apps import AppConfig


class ExecutionsConfig(AppConfig):
    name = "executions"
    verbose_name = "Executions"

    def ready(self) -> None:
        from executions import checks  # noqa: F401, PLC0415 (registers the system checks)
