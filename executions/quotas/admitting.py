"""Whether a run is admitted: what may not be at all first, then, under a lock, what is too much."""

import math
from datetime import datetime

from django.conf import settings
from django.contrib.auth import get_user_model

from executions.actor import Actor
from executions.errors import HostNetworkForbidden, InvalidRequest, QuotaExceeded, QuotaForbids
from executions.quotas import usage
from executions.quotas.terms import Terms
from executions.sandbox.references import normalise
from executions.sandbox.spec import Limits

SOON_SECS = 5
"""Retry-After where a run has to end first, and nobody knows when."""

LIMITS = ("cpu_cores", "memory_mb", "wall_clock_secs", "pids_limit", "nofile")


class OverCeiling(InvalidRequest):
    """A limit, or the priority, beyond what the user's quota allows."""

    code = "over_ceiling"


def check_host_network(actor: Actor) -> None:
    """Without a query for the anonymous, whom a setting lets in. Raises HostNetworkForbidden."""
    if actor.username == "anonymous":
        allowed: bool = settings.BOXER_ANONYMOUS_HOST_NETWORK
    else:
        user = get_user_model().objects.get(pk=actor.user_id)
        allowed = user.has_perm("executions.use_host_network")
    if not allowed:
        raise HostNetworkForbidden("you may not use the network 'host'")


def check(terms: Terms, *, image: str, network: str, limits: Limits, priority: int = 0) -> None:
    """Without a query. Raises QuotaForbids, OverCeiling."""
    if terms.networks is not None and network not in terms.networks:
        raise QuotaForbids(f"your quota doesn't allow the network {network!r}")
    reference = normalise(image)
    if not terms.allows_image(reference):
        raise QuotaForbids(f"your quota doesn't allow the image {reference!r}")
    over = {
        f"limits.{name}": [f"Your quota allows at most {ceiling:g}."]
        for name in LIMITS
        if (ceiling := getattr(terms, name)) is not None and getattr(limits, name) > ceiling
    }
    highest = terms.highest_priority
    if highest is not None and priority > highest:
        over["priority"] = [f"Your quota allows at most {highest}."]
    if over:
        name, messages = next(iter(over.items()))
        raise OverCeiling(f"{name}: {messages[0]}", fields=over)


def admit(terms: Terms, *, user_id: int) -> None:
    """Count a run in, inside the transaction that queues it. Raises QuotaExceeded."""
    usage.lock(user_id)
    found = usage.used(user_id)
    waiting = found.waiting(terms.runs_at_a_time)
    room = terms.runs_at_a_time is not None and (
        found.queued + found.claimed < terms.runs_at_a_time
    )
    if terms.runs_queued is not None and not room and waiting >= terms.runs_queued:
        _refuse("runs_queued", terms.runs_queued, waiting, None, found.now)
    hour = terms.runs_an_hour
    if hour is not None and found.runs_of_hour >= hour:
        _refuse("runs_an_hour", hour, found.runs_of_hour, found.hour_frees_at, found.now)
    cpu = terms.cpu_secs_a_day
    if cpu is not None and found.cpu_ms >= cpu * 1000:
        _refuse("cpu_secs_a_day", cpu, found.cpu_ms / 1000, found.day_frees_at, found.now)
    usage.count_run(user_id)


def _refuse(name: str, limit: int, used: float, frees_at: datetime | None, now: datetime) -> None:
    wait = SOON_SECS if frees_at is None else math.ceil((frees_at - now).total_seconds())
    raise QuotaExceeded(
        f"your quota {name} is used up: {used:g} of {limit}",
        retry_after=max(1, wait),
        details={
            "quota": {
                "name": name,
                "limit": limit,
                "used": used,
                "frees_at": frees_at.isoformat() if frees_at else None,
            }
        },
    )
