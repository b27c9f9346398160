"""Which quota holds for a user: field by field, the nearest that says something."""

import fnmatch
from dataclasses import dataclass, fields
from typing import Any

from django.db.models import Q

from executions.quotas.known import any_quota
from executions.quotas.models import Quota


@dataclass(frozen=True, slots=True)
class Terms:
    """None is unlimited, or what the settings say."""

    runs_at_a_time: int | None = None
    runs_queued: int | None = None
    runs_an_hour: int | None = None
    cpu_secs_a_day: int | None = None
    stored_bytes: int | None = None
    stored_files: int | None = None
    cpu_cores: float | None = None
    memory_mb: int | None = None
    wall_clock_secs: int | None = None
    pids_limit: int | None = None
    nofile: int | None = None
    networks: tuple[str, ...] | None = None
    images: tuple[str, ...] | None = None
    weight: int | None = None
    highest_priority: int | None = None
    retention_days: int | None = None
    retention_runs: int | None = None

    def allows_image(self, reference: str) -> bool:
        """`reference` is a normalised one."""
        patterns = self.images
        return patterns is None or any(fnmatch.fnmatchcase(reference, one) for one in patterns)


def terms_of(user_id: int) -> Terms | None:
    """One query; None, usually without any, where no quota holds for the user."""
    if not any_quota():
        return None
    holding = list(
        Quota.objects.filter(Q(user_id=user_id) | Q(group__user=user_id) | Q(everybody=True))
    )
    if not holding:
        return None
    rings = (
        [quota for quota in holding if quota.user_id is not None],
        [quota for quota in holding if quota.group_id is not None],
        [quota for quota in holding if quota.everybody],
    )
    return Terms(**{field.name: _nearest(rings, field.name) for field in fields(Terms)})


def _nearest(rings: tuple[list[Quota], ...], name: str) -> Any:
    for ring in rings:
        said = [value for quota in ring if (value := getattr(quota, name)) is not None]
        if said and isinstance(said[0], list):
            return tuple(dict.fromkeys(one for values in said for one in values))
        if said:
            return max(said)
    return None
