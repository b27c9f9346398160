"""Entries of commands that found no database: in files until the keeper brings them in."""

import json
import logging
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.db import DatabaseError, InterfaceError, connections
from django.utils import timezone

from executions.actor import Actor
from executions.audit.recording import record
from executions.audit.requests import local_actor
from executions.audit.verbs import Verb

logger = logging.getLogger(__name__)

NAME = "audit-spool"


def record_of_host(
    home: Path, verb: Verb, object_type: str, object_id: str, details: Mapping[str, Any]
) -> None:
    """What somebody did at this host; in a file where the database can't be had."""
    actor = local_actor()
    try:
        record(actor, verb, object_type, object_id, details=details)
    except (DatabaseError, InterfaceError):
        connections.close_all()
        kept = {
            "username": actor.username,
            "verb": verb.value,
            "object_type": object_type,
            "object_id": object_id,
            "details": {**details, "done_at": timezone.now().isoformat()},
        }
        directory = home / NAME
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = directory / f"{secrets.token_hex(8)}.new"
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(kept))
        fresh.rename(fresh.with_suffix(".json"))


def bring_in(home: Path) -> int:
    """Make entries of what the files keep; how many there were."""
    found = sorted((home / NAME).glob("*.json"))
    for file in found:
        try:
            kept = json.loads(file.read_text())
            record(
                Actor(0, kept["username"]),
                Verb(kept["verb"]),
                kept["object_type"],
                kept["object_id"],
                details=kept["details"],
            )
        except (ValueError, LookupError, TypeError):
            logger.exception("%s is not an entry of the audit log", file)
            file.rename(file.with_suffix(".bad"))
            continue
        file.unlink()
    return len(found)
