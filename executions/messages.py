"""django-q2's messages: one for each run that waits, and for other work of the workers."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from django.utils import timezone
from django_q.signing import SignedPackage

from executions.broker import ListenBroker

RUN_TASK = "executions.tasks.run_execution"


def enqueue(exec_id: str, *, entry: Sequence[Any] = ()) -> int:
    """The message for a run; its id. `entry` goes into the audit log along with it."""
    task_id = exec_id.removeprefix("boxer-").ljust(32, "0")
    return enqueue_task(task_id, exec_id, RUN_TASK, exec_id, entry=entry)


def enqueue_task(
    task_id: str, name: str, function: str, *arguments: object, entry: Sequence[Any] = ()
) -> int:
    """django-q2's message as async_task() would write it, in the caller's transaction; its id.

    `function` is named by its dotted path; `task_id` has at most 32 characters.
    """
    task = {
        "id": task_id,
        "name": name,
        "func": function,
        "args": arguments,
        "kwargs": {},
        "started": timezone.now(),
        "ack_failure": True,
    }
    return _broker().enqueue(SignedPackage.dumps(task), entry)


@cache
def _broker() -> ListenBroker:
    return ListenBroker()
