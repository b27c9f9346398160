"""What staff do to chosen executions and hosts: services do it, and write it down."""

from executions import hosts, services
from executions.actor import Actor
from executions.administration.confirmed import LeftAlone, Step
from executions.models import Execution, WorkerHost
from executions.quotas.holding import hold

MANAGE = "executions.manage_all"


def _cancel(actor: Actor, execution: Execution) -> None:
    services.cancel(actor=actor, execution=execution)


def _rerun(actor: Actor, execution: Execution) -> str:
    return services.rerun(actor=actor, execution=execution)


def _remove(actor: Actor, execution: Execution) -> None:
    services.remove(actor=actor, execution=execution)


def _hold(actor: Actor, execution: Execution) -> None:  # noqa: ARG001 (the log asks who it is)
    if not hold(user_id=execution.owner_id):
        raise LeftAlone("the user is held already")


def _drain(actor: Actor, host: WorkerHost) -> None:
    if not hosts.drain(actor=actor, host_id=host.pk, draining=True):
        raise LeftAlone("the host has stopped, or takes no run already")


def _resume(actor: Actor, host: WorkerHost) -> None:
    if not hosts.drain(actor=actor, host_id=host.pk, draining=False):
        raise LeftAlone("the host has stopped, or takes runs already")


CANCEL = Step(
    name="cancel",
    title="Cancel",
    warning="What waits is never started, and what runs is ended at once, with what it has "
    "printed kept. It can't be taken back.",
    done="cancelled",
    permission=MANAGE,
    work=_cancel,
)
RERUN = Step(
    name="rerun",
    title="Run again",
    warning="Each is queued once more as a run of yours, under your quota: the same command "
    "with the same inputs on the image that ran.",
    done="queued again",
    permission=MANAGE,
    work=_rerun,
)
REMOVE = Step(
    name="remove",
    title="Delete with all contents",
    warning="The executions go with their output, standard input, and the files that they left "
    "in their owners' stores. That they were there is in the audit log. It can't be taken back.",
    done="deleted",
    permission=MANAGE,
    work=_remove,
)
HOLD = Step(
    name="hold",
    title="Hold their owners",
    warning="Whatever the owners of these have waiting, or submit from now on, waits; what runs "
    "goes on. Their quota allows 0 runs at a time then: change that there to let them go on. What "
    "it was is in the audit log.",
    done="owners held",
    permission="quotas.change_quota",
    work=_hold,
)
DRAIN = Step(
    name="drain",
    title="Drain",
    warning="They take no new run, within five seconds; what they run goes on to its end. Where no "
    "other host is left, runs wait. It holds until it is taken back or the workers start anew.",
    done="drained",
    permission=MANAGE,
    work=_drain,
)
RESUME = Step(
    name="resume",
    title="Take runs again",
    warning="They take runs again, within five seconds.",
    done="take runs again",
    permission=MANAGE,
    work=_resume,
)
OF_EXECUTIONS = (CANCEL, RERUN, REMOVE, HOLD)
OF_HOSTS = (DRAIN, RESUME)
