"""The audit log: who did what to which object when, append-only and chained by hashes."""

from executions.audit.recording import INSERT, entry_values, record, record_failure
from executions.audit.requests import current_actor
from executions.audit.verbs import Verb

__all__ = ["INSERT", "Verb", "current_actor", "entry_values", "record", "record_failure"]
