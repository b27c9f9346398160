"""Whether there are quotas at all: asked at most every 5 seconds, since most have none."""

import time
from typing import Any

from django.db.models.signals import post_delete, post_save

from executions.quotas.models import Quota

TTL_SECS = 5.0
"""So long the very first quota may take to be heard of by processes other than its maker's."""

_present: tuple[bool, float] | None = None


def any_quota() -> bool:
    global _present  # noqa: PLW0603 (one per process)
    present = _present
    if present is None or time.monotonic() - present[1] > TTL_SECS:
        now = time.monotonic()
        present = _present = (Quota.objects.exists(), now)
    return present[0]


def forget(**_: Any) -> None:
    """After a change that this process made."""
    global _present  # noqa: PLW0603
    _present = None


def connect() -> None:
    post_save.connect(forget, sender=Quota, dispatch_uid="quotas.saved")
    post_delete.connect(forget, sender=Quota, dispatch_uid="quotas.deleted")
