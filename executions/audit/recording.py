"""Adds an entry in the caller's transaction: it is there if what it tells of is, and only then.

An entry is one plain INSERT. It is chained to the one before it a moment later (chain.py), so that
nobody waits for a lock, however many write at once.
"""

from collections.abc import Mapping
from typing import Any

from django.db import connection
from psycopg.types.json import Jsonb

from executions.actor import Actor
from executions.audit.verbs import Verb

DETAILS_DEPTH = 4
DETAILS_ITEMS = 64
DETAILS_TEXT = 512
"""Characters of one text, items of one list or object: what a request says fills no disk."""

FAILURES_A_MINUTE = 20
"""Pairs of name and address told apart in one minute; all others are counted together."""

COLUMNS = "user_id, username, token, address, verb, object_type, object_id, owner_id, details"
VALUES = "%s, %s, %s, %s, %s, %s, %s, %s, %s"
TYPED_VALUES = "%s::bigint, %s, %s, %s, %s, %s, %s, %s::bigint, %s::jsonb"
"""The same where no column gives them a type: `INSERT … SELECT … FROM`."""
INSERT = f"INSERT INTO audit_entry ({COLUMNS}) VALUES ({VALUES})"  # noqa: S608 (constants)
"""Fit to be one part of a larger statement (`WITH … AS (INSERT …)`) with `entry_values`."""


def record(
    actor: Actor,
    verb: Verb,
    object_type: str,
    object_id: object,
    *,
    owner_id: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write down that `actor` did `verb` to an object, in the caller's transaction.

    `owner_id` is whose the object is; it is kept where that isn't the actor. `details` are cut.
    """
    values = entry_values(actor, verb, object_type, object_id, owner_id=owner_id, details=details)
    with connection.cursor() as cursor:
        cursor.execute(INSERT, values)


_ONCE = f"""
    INSERT INTO audit_entry ({COLUMNS}) SELECT {TYPED_VALUES}
    WHERE NOT EXISTS (
        SELECT 1 FROM audit_entry WHERE object_id = %s AND verb = %s AND username = %s
            AND details = %s AND at > clock_timestamp() - interval '1 minute'
    )
"""  # noqa: S608 (constants)


def record_look(
    actor: Actor,
    verb: Verb,
    object_type: str,
    object_id: object,
    *,
    owner_id: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """The same, once a minute at most: a page that looks again and again is one look."""
    values = entry_values(actor, verb, object_type, object_id, owner_id=owner_id, details=details)
    # The object's index finds those of the last minute among its newest.
    username, told, found = values[1], values[8], values[6]
    with connection.cursor() as cursor:
        cursor.execute(_ONCE, [*values, found, verb.value, username, told])


def entry_values(
    actor: Actor,
    verb: Verb,
    object_type: str,
    object_id: object,
    *,
    owner_id: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> list[Any]:
    """The parameters of INSERT."""
    return [
        actor.user_id or None,
        clean(actor.username, 150),
        clean(actor.token, 150),
        clean(actor.address, 64),
        verb.value,
        object_type,
        clean(str(object_id), 200),
        owner_id if owner_id != actor.user_id else None,
        Jsonb(_bounded(details or {}, DETAILS_DEPTH)),
    ]


def clean(text: str, limit: int) -> str:
    """What PostgreSQL can keep of a text that may come from anybody."""
    return text[:limit].encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _bounded(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth and isinstance(value, Mapping):
        items = list(value.items())[:DETAILS_ITEMS]
        return {clean(str(key), 64): _bounded(inner, depth - 1) for key, inner in items}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_bounded(inner, depth - 1) for inner in list(value)[:DETAILS_ITEMS]]
    return clean(str(value), DETAILS_TEXT)


_FAILURE = """
    WITH minute AS (SELECT date_trunc('minute', clock_timestamp()) AS now), room AS (
        SELECT count(*) < %(most)s OR coalesce(
            bool_or(verb = %(verb)s AND address = %(address)s AND username = %(username)s), false
        ) AS free
        FROM audit_failure, minute WHERE audit_failure.minute = minute.now
    )
    INSERT INTO audit_failure AS failure (minute, verb, address, username, times)
    SELECT now, %(verb)s, CASE WHEN free THEN %(address)s ELSE '' END,
        CASE WHEN free THEN %(username)s ELSE '' END, 1
    FROM room, minute
    ON CONFLICT (minute, verb, address, username) DO UPDATE SET times = failure.times + 1
"""


def record_failure(verb: Verb, *, username: str, address: str) -> None:
    """Count a failed login; one entry for each name and address is made of it within two minutes.

    However many fail, a minute makes some twenty entries at most.
    """
    values = {
        "verb": verb.value,
        "username": clean(username, 150),
        "address": clean(address, 64),
        "most": FAILURES_A_MINUTE,
    }
    with connection.cursor() as cursor:
        cursor.execute(_FAILURE, values)
