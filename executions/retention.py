"""Removes what ended: after BOXER_RETENTION_DAYS, beyond BOXER_RETENTION_RUNS, or as quotas say."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import Exists, OuterRef, Q
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
    for kept in _kept():
        for execution in _oldest(kept):
            try:
                remove(actor=RETIRED_BY, execution=execution)
            except NotEnded:
                continue
            removed += 1
        if kept.since is not None:
            _retire_batches(kept.owner_id, kept.since)
        if removed >= MOST_OF_A_CALL:
            break
    if removed:
        logger.info("executions retired: %d", removed)
    return removed


@dataclass(frozen=True, slots=True)
class Kept:
    """What of a user's stays: what ended since then, and so many of the newest (0: all)."""

    owner_id: int
    since: datetime | None
    newest: int


def _kept() -> Iterator[Kept]:
    """Users with executions of which something may go."""
    usual: tuple[int, int] = settings.BOXER_RETENTION_DAYS, settings.BOXER_RETENTION_RUNS
    said = Q(retention_days__isnull=False) | Q(retention_runs__isnull=False)
    by_quota = Quota.objects.filter(said).exists()
    if not (any(usual) or by_quota):
        return
    now = timezone.now()
    theirs = Execution.objects.filter(owner_id=OuterRef("pk"))
    users = get_user_model().objects.filter(Exists(theirs)).order_by("pk")
    for user_id in users.values_list("pk", flat=True):
        terms = terms_of(user_id) if by_quota else None
        days, runs = (
            usual_one if own is None else own
            for usual_one, own in zip(
                usual,
                (terms.retention_days, terms.retention_runs) if terms else (None, None),
                strict=True,
            )
        )
        if days or runs:
            yield Kept(user_id, now - timedelta(days=days) if days else None, runs)


def _oldest(kept: Kept) -> list[Execution]:
    """Due ones among the first; those that may stay longer were submitted later."""
    theirs = Execution.objects.filter(owner_id=kept.owner_id)
    # The newest that is one too many, by the index of an owner's executions.
    beyond = theirs.order_by("-pk").values_list("pk", flat=True)[kept.newest : kept.newest + 1]
    last = next(iter(beyond), 0) if kept.newest else 0
    oldest = theirs.order_by("pk")[:AT_ONCE]
    return [
        execution
        for execution in oldest.only("pk", "exec_id", "status", "finished_at", "owner_id")
        if execution.status not in UNFINISHED
        and execution.finished_at is not None
        and (
            execution.pk <= last or (kept.since is not None and execution.finished_at < kept.since)
        )
    ]


def _retire_batches(owner_id: int, before: datetime) -> None:
    """Those of which nothing is left."""
    run = Case.objects.filter(batch_id=OuterRef("pk"), execution__isnull=False)
    oldest = Batch.objects.filter(owner_id=owner_id, created_at__lt=before).order_by("pk")
    empty = oldest.filter(~Exists(run), entrypoint=None).exclude(phase=Phase.BUILDING)
    Batch.objects.filter(pk__in=list(empty.values_list("pk", flat=True)[:AT_ONCE])).delete()
