"""The audit log: who did what to which object when, append-only and chained by hashes."""

from executions.audit.recording import (
    COLUMNS,
    TYPED_VALUES,
    entry_values,
    record,
    record_failure,
    record_look,
)
from executions.audit.requests import current_actor
from executions.audit.verbs import Verb

__all__ = [
    "COLUMNS",
    "TYPED_VALUES",
    "Verb",
    "current_actor",
    "entry_values",
    "record",
    "record_failure",
    "record_look",
]
