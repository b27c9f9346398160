"""Removes what ended long ago: after BOXER_RETENTION_DAYS, or what its owner's quota says."""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import Exists, OuterRef
from django.utils import timezone

from executions.actor import Actor
from executions.batches.models import Batch, Case, Phase
from executions.errors import NotEnded
from executions.models import UNFINISHED, Execution
from executions.quotas.models import Quota
from executions.quotas.terms import terms_of
from executions.removal import remove

logger = logging.getLogger(__name__)

AT_ONCE = 100
"""Of one user, and looked at from the oldest on: by the index of an owner's executions."""
MOST_OF_A_CALL = 500
"""The keeper has other duties, which wait meanwhile; whatever is left goes a minute later."""
RETIRED_BY = Actor(0, "local:retention")


def retire() -> int:
    """Some of what is due, each in a transaction of its own; how many executions went."""
    removed = 0
    for owner_id, before in _due_owners():
        for execution in _oldest(owner_id, before):
            try:
                remove(actor=RETIRED_BY, execution=execution)
            except NotEnded:
                continue
            removed += 1
        _retire_batches(owner_id, before)
        if removed >= MOST_OF_A_CALL:
            break
    if removed:
        logger.info("executions retired: %d", removed)
    return removed


def _due_owners() -> Iterator[tuple[int, datetime]]:
    """Users with executions, and the moment before which theirs go; those kept for ever aren't."""
    usual: int = settings.BOXER_RETENTION_DAYS
    by_quota = Quota.objects.filter(retention_days__isnull=False).exists()
    if not (usual or by_quota):
        return
    now = timezone.now()
    theirs = Execution.objects.filter(owner_id=OuterRef("pk"))
    users = get_user_model().objects.filter(Exists(theirs)).order_by("pk")
    for user_id in users.values_list("pk", flat=True):
        terms = terms_of(user_id) if by_quota else None
        said = terms.retention_days if terms is not None else None
        if days := usual if said is None else said:
            yield user_id, now - timedelta(days=days)


def _oldest(owner_id: int, before: datetime) -> list[Execution]:
    """Due ones among the first; those that may stay longer were submitted later."""
    oldest = Execution.objects.filter(owner_id=owner_id).order_by("pk")[:AT_ONCE]
    return [
        execution
        for execution in oldest.only("pk", "exec_id", "status", "finished_at", "owner_id")
        if execution.status not in UNFINISHED
        and execution.finished_at is not None
        and execution.finished_at < before
    ]


def _retire_batches(owner_id: int, before: datetime) -> None:
    """Those of which nothing is left."""
    run = Case.objects.filter(batch_id=OuterRef("pk"), execution__isnull=False)
    oldest = Batch.objects.filter(owner_id=owner_id, created_at__lt=before).order_by("pk")
    empty = oldest.filter(~Exists(run), entrypoint=None).exclude(phase=Phase.BUILDING)
    Batch.objects.filter(pk__in=list(empty.values_list("pk", flat=True)[:AT_ONCE])).delete()
