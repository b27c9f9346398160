"""The image store that the settings describe."""

from django.conf import settings

from executions.sandbox.images import ImageStore


def image_store() -> ImageStore:
    return ImageStore(
        settings.BOXER_HOME / "images",
        size_limit=settings.BOXER_IMAGE_LIMIT_BYTES,
        pull_timeout=settings.BOXER_PULL_TIMEOUT_SECS,
        tag_ttl=settings.BOXER_TAG_TTL_SECS,
    )
