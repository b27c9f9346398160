"""A user who is held: what they have waiting waits on, and what runs goes on to its end."""

from django.db import transaction

from executions.quotas.models import Quota


@transaction.atomic
def hold(*, user_id: int) -> bool:
    """By their own quota, whose change is in the audit log. False when they are held already."""
    quota, made = Quota.objects.select_for_update().get_or_create(
        user_id=user_id, defaults={"runs_at_a_time": 0}
    )
    if made:
        return True
    if quota.runs_at_a_time == 0:
        return False
    quota.runs_at_a_time = 0
    quota.save(update_fields=["runs_at_a_time"])
    return True
