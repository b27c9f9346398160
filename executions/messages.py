"""django-q2's messages: one for each run that waits, and for other work of the workers."""

from functools import cache

from django.utils import timezone
from django_q.conf import Conf
from django_q.signing import SignedPackage

from executions.broker import ListenBroker

RUN_TASK = "executions.tasks.run_execution"
PREFETCH_TASK = "executions.tasks.prefetch_image"
CLAIMED_TASKS = frozenset({RUN_TASK, PREFETCH_TASK})
"""Whoever claims what they are about takes their message away."""


def enqueue(exec_id: str) -> int:
    """The message for a run, in the caller's transaction; its id."""
    return _broker().enqueue(package_of(exec_id))


def package_of(exec_id: str) -> str:
    """The signed package that tells a worker to run this execution."""
    task_id = exec_id.removeprefix("boxer-").ljust(32, "0")
    return _package(task_id, exec_id, RUN_TASK, exec_id)


def enqueue_task(task_id: str, name: str, function: str, *arguments: object) -> int:
    """django-q2's message as async_task() would write it, in the caller's transaction; its id.

    `function` is named by its dotted path; `task_id` has at most 32 characters.
    """
    return _broker().enqueue(_package(task_id, name, function, *arguments))


def broker_key() -> str:
    """What django-q2's queue knows our messages by."""
    return str(_broker().list_key or Conf.CLUSTER_NAME)


def _package(task_id: str, name: str, function: str, *arguments: object) -> str:
    task = {
        "id": task_id,
        "name": name,
        "func": function,
        "args": arguments,
        "kwargs": {},
        "started": timezone.now(),
        "ack_failure": True,
    }
    package: str = SignedPackage.dumps(task)
    return package


@cache
def _broker() -> ListenBroker:
    return ListenBroker()
