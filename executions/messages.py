"""django-q2's messages: one for each run that waits."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from django.utils import timezone
from django_q.signing import SignedPackage

from executions.broker import ListenBroker

RUN_TASK = "executions.tasks.run_execution"


def enqueue(exec_id: str, *, entry: Sequence[Any] = ()) -> int:
    """django-q2's message for a run, as async_task() would write it; its id.

    `entry` goes into the audit log along with it."""
    task = {
        "id": exec_id.removeprefix("boxer-").ljust(32, "0"),
        "name": exec_id,
        "func": RUN_TASK,
        "args": (exec_id,),
        "kwargs": {},
        "started": timezone.now(),
        "ack_failure": True,
    }
    return _broker().enqueue(SignedPackage.dumps(task), entry)


@cache
def _broker() -> ListenBroker:
    return ListenBroker()
