"""The only writers of an execution's status; what the rest of Boxer calls."""

from executions.healing import MOST_ATTEMPTS, reap_lost_hosts, reap_worker
from executions.lifecycle import Ending, claim, finish, queue_again, start, withdraw
from executions.messages import RUN_TASK
from executions.submission import RunRequest, submit

__all__ = [
    "MOST_ATTEMPTS",
    "RUN_TASK",
    "Ending",
    "RunRequest",
    "claim",
    "finish",
    "queue_again",
    "reap_lost_hosts",
    "reap_worker",
    "start",
    "submit",
    "withdraw",
]
