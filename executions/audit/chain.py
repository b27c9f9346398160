"""Chains entries: each one's hash covers the entry and the hash of the one before it.

    hash = sha256(hash of the one before + the entry as JSON, see `text_of`)

Entries are written without it and chained in the order of their numbers by whoever calls `chain`
(the keeper, each second), under the lock of the head's row. What is written is never lost with a
process; only who could change the database in that second would leave no trace in the chain.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.db import connection, transaction

BATCH = 1000
NO_HASH = bytes(32)
"""What stands before the first entry."""


class HeadMissing(Exception):
    """There are chained entries, and the row that tells the last of them is gone."""


class Row(NamedTuple):
    """An entry as the chain sees it."""

    id: int
    at: datetime
    user_id: int | None
    username: str
    token: str
    address: str
    verb: str
    object_type: str
    object_id: str
    owner_id: int | None
    details: Any


COLUMNS = ", ".join(Row._fields)


def text_of(seq: int, row: Row) -> bytes:
    """What is hashed of an entry, so that anybody can do it again with an export."""
    values = [seq, row.id, row.at.astimezone(UTC).isoformat(), *row[2:]]
    return json.dumps(values, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def hash_of(before: bytes, seq: int, row: Row) -> bytes:
    return hashlib.sha256(before + text_of(seq, row)).digest()


def parsed(values: Sequence[Any]) -> Row:
    """A row of the database, whose JSON Django leaves as text."""
    return Row._make([*values[:-1], json.loads(values[-1])])


def chain() -> int:
    """Chain every entry that isn't yet; how many there were. Raises HeadMissing."""
    done = 0
    while chained := _chain_some():
        done += chained
        if chained < BATCH:
            break
    return done


def _chain_some() -> int:
    if not _is_there("SELECT 1 FROM audit_entry WHERE seq IS NULL LIMIT 1"):
        return 0
    with transaction.atomic(), connection.cursor() as cursor:
        seq, before = _locked_head()
        cursor.execute(
            f"SELECT {COLUMNS} FROM audit_entry WHERE seq IS NULL"  # noqa: S608 (constants)
            " ORDER BY id LIMIT %s",
            [BATCH],
        )
        links = []
        for row in map(parsed, cursor.fetchall()):
            seq += 1
            before = hash_of(before, seq, row)
            links.append((row.id, seq, before))
        if links:
            cursor.execute(
                "UPDATE audit_entry SET seq = link.seq, hash = link.hash"
                " FROM unnest(%s::bigint[], %s::bigint[], %s::bytea[]) AS link (id, seq, hash)"
                " WHERE audit_entry.id = link.id",
                [list(column) for column in zip(*links, strict=True)],
            )
            cursor.execute("UPDATE audit_head SET seq = %s, hash = %s", [seq, before])
    return len(links)


_LOCK_HEAD = "SELECT seq, hash FROM audit_head WHERE id = 1 FOR UPDATE"


def _locked_head() -> tuple[int, bytes]:
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_HEAD)
        found = cursor.fetchone()
        if found is None:
            if _is_there("SELECT 1 FROM audit_entry WHERE seq IS NOT NULL LIMIT 1"):
                raise HeadMissing("the row of audit_head is gone; `manage.py audit verify`")
            cursor.execute(
                "INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, %s) ON CONFLICT DO NOTHING",
                [NO_HASH],
            )
            cursor.execute(_LOCK_HEAD)
            found = cursor.fetchone()
    return int(found[0]), bytes(found[1])


def _is_there(sql: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone() is not None


_SETTLE = """
    WITH closed AS (
        DELETE FROM audit_failure WHERE minute < date_trunc('minute', clock_timestamp())
        RETURNING *
    )
    INSERT INTO audit_entry (username, address, verb, object_type, object_id, details)
    SELECT username, address, verb, 'user', username,
        jsonb_build_object('times', times, 'minute', minute, 'others', username || address = '')
    FROM closed
"""


def settle_failures() -> int:
    """Make entries of the failed logins of minutes that are over; how many."""
    with connection.cursor() as cursor:
        cursor.execute(_SETTLE)
        return int(cursor.rowcount)
