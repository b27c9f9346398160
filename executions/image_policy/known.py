"""The rules and pins as this process knows them: read by one statement, at most every 5 seconds."""

import fnmatch
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from django.db import connection

TTL_SECS = 5.0
"""So long a change may take to be heard of by other processes than the one that made it."""
MOST_USERS = 10_000

_READ = """
    SELECT name, pattern, action, user_id, group_id, max_bytes, platform,
        NULL AS reference, NULL AS digest, -priority AS turn, id
    FROM image_policy_rule
    UNION ALL
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, reference, digest, 0, id
    FROM image_policy_pin
    ORDER BY turn, id
"""


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))


@dataclass(frozen=True, slots=True)
class KnownRule:
    name: str
    pattern: str
    action: str
    user_id: int | None
    group_id: int | None
    max_bytes: int | None
    platform: str

    def matches(self, reference: str) -> bool:
        return _compiled(self.pattern).match(reference) is not None


@dataclass(frozen=True, slots=True)
class Known:
    rules: tuple[KnownRule, ...]
    pins: dict[str, str]
    read_at: float
    groups: dict[int, frozenset[int]]
    """Of users that were asked for since."""

    def __bool__(self) -> bool:
        return bool(self.rules or self.pins)

    def groups_of(self, user_id: int) -> frozenset[int]:
        """Asked once in the life of this object, and only where a rule names a group."""
        found = self.groups.get(user_id)
        if found is None:
            with connection.cursor() as cursor:
                sql = "SELECT group_id FROM auth_user_groups WHERE user_id = %s"
                cursor.execute(sql, [user_id])
                found = frozenset(int(row[0]) for row in cursor.fetchall())
            if len(self.groups) < MOST_USERS:
                self.groups[user_id] = found
        return found


_present: Known | None = None


def known() -> Known:
    """Threads may read at the same time; the last one's finding stays."""
    global _present  # noqa: PLW0603 (one per process)
    present = _present
    if present is None or time.monotonic() - present.read_at > TTL_SECS:
        now = time.monotonic()
        with connection.cursor() as cursor:
            cursor.execute(_READ)
            present = _present = _of(cursor.fetchall(), now)
    return present


def _of(rows: Iterable[tuple[object, ...]], now: float) -> Known:
    rules: list[KnownRule] = []
    pins: dict[str, str] = {}
    for *rule, reference, digest, _turn, _id in rows:
        if reference is None:
            rules.append(KnownRule(*rule))  # type: ignore[arg-type]
        else:
            pins[str(reference)] = str(digest)
    return Known(tuple(rules), pins, now, {})


def forget() -> None:
    """After a change that this process made."""
    global _present  # noqa: PLW0603
    _present = None
