"""What staff do to chosen executions: the services of the API do it, and write it down."""

from executions import services
from executions.actor import Actor
from executions.administration.confirmed import Step
from executions.models import Execution

MANAGE = "executions.manage_all"


def _cancel(actor: Actor, execution: Execution) -> None:
    services.cancel(actor=actor, execution=execution)


def _rerun(actor: Actor, execution: Execution) -> str:
    return services.rerun(actor=actor, execution=execution)


def _remove(actor: Actor, execution: Execution) -> None:
    services.remove(actor=actor, execution=execution)


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
ALL = (CANCEL, RERUN, REMOVE)
