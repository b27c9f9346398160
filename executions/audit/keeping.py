"""What the keeper does for the audit log."""

from pathlib import Path

from executions.audit import spool, witness
from executions.audit.chain import chain, settle_failures

__all__ = ["chain_and_note", "settle_failures"]


def chain_and_note(home: Path) -> None:
    """Chain what is new, and note the head in a file where it has moved."""
    spool.bring_in(home)
    if chain():
        witness.note(home)
