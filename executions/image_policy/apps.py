"""Which images may be run and pulled, which are here, and bringing them in ahead."""

from django.apps import AppConfig


class ImagePolicyConfig(AppConfig):
    name = "executions.image_policy"
    label = "image_policy"
    verbose_name = "Images"

    def ready(self) -> None:
        from executions.image_policy import receivers  # noqa: PLC0415 (signals need the apps)

        receivers.connect()
