"""What became of runs whose worker or host is gone."""

from django.db.models import Q
from django.utils import timezone

from executions.hosts import HOST_SILENCE
from executions.lifecycle import Ending, finish, queue_again
from executions.models import CLAIMED, Execution, Outcome, Status

MOST_ATTEMPTS = 3
"""How often a run that never started is tried again."""


def reap_worker(*, host_id: str, worker: str) -> int:
    """End, or queue again, what a dead worker had claimed; how many those were."""
    return _reap(Q(host_id=host_id, worker=worker), "its worker died")


def reap_lost_hosts() -> int:
    """The same for hosts that have stopped or fallen silent."""
    silent = Q(host__seen_at__lt=timezone.now() - 4 * HOST_SILENCE)
    gone = Q(host__isnull=True) | Q(host__stopped_at__isnull=False) | silent
    return _reap(gone, "its worker host was lost")


def _reap(lost: Q, why: str) -> int:
    executions = list(Execution.objects.filter(lost, status__in=CLAIMED).order_by("pk")[:1000])
    for execution in executions:
        if execution.cancel_requested_at is not None:
            finish(execution=execution, ending=Ending(outcome=None))
        elif execution.status == Status.PULLING and execution.attempts < MOST_ATTEMPTS:
            queue_again(execution=execution)
        else:
            ending = Ending(
                outcome=Outcome.INFRA_ERROR, error=f"the run was lost: {why}", error_code="lost"
            )
            finish(execution=execution, ending=ending)
    return len(executions)
