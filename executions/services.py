"""The only writers of an execution's status; what the rest of Boxer calls."""

from executions.cancellation import cancel, settle_overdue
from executions.healing import MOST_ATTEMPTS, reap_lost_hosts, reap_worker
from executions.lifecycle import Ending, claim, finish, queue_again, start, withdraw
from executions.messages import RUN_TASK
from executions.removal import output_directory, remove
from executions.repetition import rerun
from executions.submission import RunRequest, submit

__all__ = [
    "MOST_ATTEMPTS",
    "RUN_TASK",
    "Ending",
    "RunRequest",
    "cancel",
    "claim",
    "finish",
    "output_directory",
    "queue_again",
    "reap_lost_hosts",
    "reap_worker",
    "remove",
    "rerun",
    "settle_overdue",
    "start",
    "submit",
    "withdraw",
]
