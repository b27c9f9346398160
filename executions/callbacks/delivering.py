"""One try of one delivery, from its claim to what came of it."""

import logging
import select
import time
from functools import cache

from django.conf import settings

from executions.callbacks import services, signing, targets
from executions.callbacks.errors import BadCallbackUrl
from executions.callbacks.models import Delivery
from executions.callbacks.sending import Interrupted, Result, Sender
from executions.sealed.services import SealBroken

logger = logging.getLogger(__name__)

USER_AGENT = "Boxer/1.0"
DRAIN_SECS = 3.0
"""The keeper alone lets a quarter of the workers send one each in a second: one of four workers."""


def drain(delivery_id: str, *, sender: Sender | None = None, interrupt: int | None = None) -> int:
    """Try it, then what else is due, for a few seconds; how many were tried.

    A worker that sends goes on, so that many that end at once don't wait for the keeper's rhythm,
    and gives way to runs soon.
    """
    until, tried = time.monotonic() + DRAIN_SECS, 0
    due: str | None = delivery_id
    while due is not None and deliver(due, sender=sender, interrupt=interrupt) is not None:
        tried += 1
        if time.monotonic() > until or (interrupt is not None and _is_set(interrupt)):
            break
        due = services.next_due()
    return tried


def _is_set(interrupt: int) -> bool:
    return bool(select.select([interrupt], [], [], 0)[0])


def deliver(
    delivery_id: str, *, sender: Sender | None = None, interrupt: int | None = None
) -> bool | None:
    """Try it if it is due and nobody else does; whether it was delivered, None if it wasn't tried.

    `interrupt` is a descriptor that becomes readable when the worker is to end.
    """
    claimed = services.claim(delivery_id=delivery_id)
    if claimed is None:
        return None
    delivery, attempt = claimed
    for_good = at_once = False
    try:
        result = _send(delivery, sender or _sender(), interrupt)
    except BadCallbackUrl as error:
        result, for_good = Result(0, error=error.message), True
    except SealBroken as error:
        logger.error("%s: %s", delivery.pk, error)  # noqa: TRY400 (its traceback says nothing)
        result = Result(0, error=error.message)
    except Interrupted:
        result, at_once = Result(0, error="the service was stopped while it sent it"), True
    except Exception:
        logger.exception("callback %s failed", delivery.pk)
        result = Result(0, error="a fault of Boxer; its log has the reason")
    services.record(
        delivery=delivery, attempt=attempt, result=result, for_good=for_good, at_once=at_once
    )
    return result.delivered


def _send(delivery: Delivery, sender: Sender, interrupt: int | None) -> Result:
    url = targets.parse(delivery.url)
    timestamp = int(time.time())
    secret = signing.secret_of(user_id=delivery.user_id)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "Boxer-Delivery": str(delivery.pk),
        "Boxer-Event": delivery.event,
        "Boxer-Timestamp": str(timestamp),
        "Boxer-Signature": signing.signature(secret, timestamp, delivery.body),
    }
    return sender.post(url, headers, delivery.body.encode(), interrupt=interrupt)


@cache
def _sender() -> Sender:
    return Sender(allowed=settings.BOXER_CALLBACK_ALLOW)
