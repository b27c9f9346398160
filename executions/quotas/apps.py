"""What each user may do how much of, and in whose turn what waits is run."""

from django.apps import AppConfig


class QuotasConfig(AppConfig):
    name = "executions.quotas"
    label = "quotas"
    verbose_name = "Quotas"

    def ready(self) -> None:
        from executions.quotas import storage  # noqa: PLC0415 (models need the apps)
        from executions.quotas.known import connect  # noqa: PLC0415
        from filestore import admission  # noqa: PLC0415

        connect()
        admission.register(storage.admit)
