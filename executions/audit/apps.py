"""The audit log, beside the executions that most of its entries are about."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "executions.audit"
    label = "audit"
    verbose_name = "Audit log"

    def ready(self) -> None:
        from executions.audit import receivers  # noqa: PLC0415 (signals need the apps)

        receivers.connect()
