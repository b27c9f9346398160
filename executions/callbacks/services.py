"""Deliveries: asked for, handed to workers, tried, and given up after a day."""

import json
import random
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone
from django_q.models import OrmQ

from executions.callbacks import body, targets
from executions.callbacks.models import Delivery, State, Try
from executions.callbacks.sending import Result
from executions.messages import enqueue_task

TASK = "executions.callbacks.tasks.deliver"

GIVE_UP = timedelta(days=1)
LEASE = timedelta(seconds=30)
"""Longer than any try takes; a try whose worker died is made again after it."""
FIRST_PAUSE_SECS = 5.0
LONGEST_PAUSE_SECS = 3600.0
KEPT = timedelta(days=30)
"""How long one that belongs to no execution is remembered."""


def send(*, user_id: int, url: str, event: str, payload: Mapping[str, Any]) -> Delivery:
    """Tell `url` of something, signed with the user's secret; commits with the caller.

    `event` has at most 32 characters and comes to stand in `payload`. Raises BadCallbackUrl.
    """
    targets.parse(url)
    now = timezone.now()
    return Delivery.objects.create(
        user_id=user_id,
        event=event,
        url=url,
        body=json.dumps({"event": event, **payload}, ensure_ascii=False, separators=(",", ":")),
        created_at=now,
        due_at=now,
        give_up_at=now + GIVE_UP,
    )


_DUE = """
    WITH pending AS (
        SELECT id, due_at, leased_until, message_id, row_number() OVER (
            PARTITION BY user_id ORDER BY due_at
        ) AS turn FROM callbacks_delivery WHERE state = 'pending' AND due_at <= %(now)s
    ), busy AS (
        SELECT count(*) AS number FROM pending
        WHERE leased_until > %(now)s OR EXISTS (
            SELECT 1 FROM django_q_ormq message WHERE message.id = message_id
        )
    )
    SELECT id FROM callbacks_delivery WHERE id IN (
        SELECT id FROM pending
        WHERE (leased_until IS NULL OR leased_until <= %(now)s) AND NOT EXISTS (
            SELECT 1 FROM django_q_ormq message WHERE message.id = message_id
        )
        ORDER BY turn, due_at
        LIMIT least(%(limit)s, greatest(0, %(most)s - (SELECT number FROM busy)))
    ) AND state = 'pending' FOR UPDATE SKIP LOCKED
"""


def enqueue_due(*, now: datetime | None = None) -> int:
    """Give workers what is to be sent now; how many. Several hosts may do so at once.

    Users take turns, and no more than a quarter of the workers is busy with it: receivers that
    never answer keep neither runs nor the callbacks of others waiting.
    """
    now, most = now or timezone.now(), max(1, settings.BOXER_WORKERS // 4)
    if not Delivery.objects.filter(state=State.PENDING, due_at__lte=now).exists():
        return 0  # one statement, nearly always
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('boxer: callbacks'))")
        cursor.execute(_DUE, {"now": now, "most": most, "limit": most})
        due = [row[0] for row in cursor.fetchall()]
        for delivery_id in due:
            name = f"callback {delivery_id}"
            message_id = enqueue_task(uuid.uuid4().hex, name, TASK, str(delivery_id))
            Delivery.objects.filter(pk=delivery_id).update(message_id=message_id)
    return len(due)


def next_due(*, now: datetime | None = None) -> str | None:
    """One that is due and that nobody has been given; to be claimed."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_DUE, {"now": now or timezone.now(), "most": 1 << 30, "limit": 1})
        row = cursor.fetchone()
    return str(row[0]) if row else None


@transaction.atomic
def claim(*, delivery_id: str, now: datetime | None = None) -> tuple[Delivery, Try] | None:
    """Make a due delivery this worker's; None when it isn't to be had (any more).

    Its message goes in the same transaction: from here on the lease stands for it. The try is
    written down before it is made, so that one whose worker dies is seen as well.
    """
    now = now or timezone.now()
    free = Q(leased_until__isnull=True) | Q(leased_until__lte=now)
    mine = Delivery.objects.filter(free, pk=delivery_id, state=State.PENDING, due_at__lte=now)
    if not mine.update(leased_until=now + LEASE):
        return None
    delivery = Delivery.objects.select_related("execution").get(pk=delivery_id)
    OrmQ.objects.filter(pk=delivery.message_id).delete()
    delivery.tries.filter(ms=None).update(ms=0, error="the worker died while it sent it")
    if not delivery.body and delivery.execution is not None:
        delivery.body = body.of_execution(delivery.execution)
        delivery.save(update_fields=["body"])
    return delivery, Try.objects.create(delivery=delivery, at=now)


@transaction.atomic
def record(
    *,
    delivery: Delivery,
    attempt: Try,
    result: Result,
    for_good: bool = False,
    at_once: bool = False,
) -> None:
    """Write down what came of a try, and when there is another one, if at all.

    `for_good`: no other try can succeed. `at_once`: it says nothing about the receiver.
    """
    Try.objects.filter(pk=attempt.pk).update(
        ms=result.ms, status=result.status, error=result.error, answer=result.answer
    )
    held = Delivery.objects.filter(
        pk=delivery.pk, state=State.PENDING, leased_until=delivery.leased_until
    )
    if result.delivered:
        held.update(state=State.DELIVERED, leased_until=None, message_id=None)
        return
    made = delivery.tries.filter(at__gte=delivery.give_up_at - GIVE_UP).count()
    due = attempt.at + (timedelta() if at_once else pause(made))
    if for_good or due > delivery.give_up_at:
        held.update(state=State.FAILED, leased_until=None, message_id=None)
    else:
        held.update(due_at=due, leased_until=None, message_id=None)


def pause(tries: int) -> timedelta:
    """Before the next try, after so many: doubled each time, and never the same for many at once.

    From 5 s to an hour: some thirty tries in a day.
    """
    whole = min(LONGEST_PAUSE_SECS, FIRST_PAUSE_SECS * 2 ** min(tries - 1, 20))
    return timedelta(seconds=whole * random.uniform(0.5, 1.0))  # noqa: S311 (spreads load)


def deliver_again(*, deliveries: Iterable[Delivery], now: datetime | None = None) -> int:
    """Send those once more, and for a day if need be; how many. One that is being sent is left."""
    now = now or timezone.now()
    free = Q(leased_until__isnull=True) | Q(leased_until__lte=now)
    return Delivery.objects.filter(free, pk__in=[one.pk for one in deliveries]).update(
        state=State.PENDING, due_at=now, give_up_at=now + GIVE_UP, leased_until=None
    )


def forget_old() -> None:
    """Those of executions go with their execution."""
    before = timezone.now() - KEPT
    Delivery.objects.filter(execution=None, created_at__lt=before).exclude(
        state=State.PENDING
    ).delete()
