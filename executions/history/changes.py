"""What the pages do to runs, by the services that the API calls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpRequest

from executions import services
from executions.actor import Actor
from executions.errors import BoxerError
from executions.models import Execution

MOST = 200
"""As many as a page of the list has at most."""


@dataclass(frozen=True, slots=True)
class RunChange:
    name: str
    title: str
    done: str
    warning: str
    act: Callable[[Actor, Execution], str]
    """Answers the exec_id to tell of."""
    removes: bool = False
    leads_to_new: bool = False


def _cancel(actor: Actor, run: Execution) -> str:
    services.cancel(actor=actor, execution=run)
    return run.exec_id


def _delete(actor: Actor, run: Execution) -> str:
    services.remove(actor=actor, execution=run)
    return run.exec_id


def _repeat(actor: Actor, run: Execution) -> str:
    return services.rerun(actor=actor, execution=run)


CHANGES = {
    change.name: change
    for change in (
        RunChange("cancel", "Cancel", "Cancelled", "What they have printed is kept.", _cancel),
        RunChange(
            "delete",
            "Delete",
            "Deleted",
            "What they printed and the files that they left are deleted as well.",
            _delete,
            removes=True,
        ),
        RunChange(
            "rerun",
            "Run again",
            "Queued",
            "Each is queued anew on the digest that ran.",
            _repeat,
            leads_to_new=True,
        ),
    )
}


def apply(request: HttpRequest, change: RunChange, runs: Sequence[Execution]) -> list[str]:
    """The exec_ids of what was done; what wasn't is told in the messages of the page."""
    actor, done = Actor.of(request), []
    for run in runs:
        try:
            done.append(change.act(actor, run))
        except BoxerError as error:
            messages.error(request, f"{run.exec_id}: {error.message}")
    return done
