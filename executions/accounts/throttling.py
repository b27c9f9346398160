"""Failed logins and tokens are counted in the database, so for all web processes together.

An attempt is counted before it is tried and taken back when it succeeds: any number at once can't
pass the limit. Who succeeds is only held up by failures from the same address.
"""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from django.db import connection

from executions.errors import TooManyFailures


class Limit(NamedTuple):
    failures: int
    secs: int


# A whole university may share one address, so that one is generous. What an attacker with many
# addresses gets is bounded by the name: beyond its limit an address has one attempt.
ADDRESS = Limit(100, 300)
NAME_AND_ADDRESS = Limit(10, 300)
NAME = Limit(100, 3600)
PURGED = 100
"""Rows that are over, taken away with each count: more than can be added by one."""


class Login:
    """One attempt to log in: `begin()` before the password is looked at, `succeeded()` after."""

    def __init__(self, *, name: str, address: str) -> None:
        where = network_of(address)
        # As Django compares names; what can't be a name is cut.
        name = name[:150]
        self.address = _key("login", where)
        self.both = _key("login", where, name)
        self.name = _key("login of", name)

    def begin(self) -> None:
        """Raises TooManyFailures, and then nothing was counted but this attempt."""
        limits = {self.address: ADDRESS, self.both: NAME_AND_ADDRESS, self.name: NAME}
        # Who is over the limit already adds no rows.
        self._judge(_counts(limits), 1)
        self._judge(_count(limits), 0)

    def _judge(self, counts: "Mapping[str, Count]", this: int) -> None:
        none = Count(0, 0)
        address, both, name = (counts.get(k, none) for k in (self.address, self.both, self.name))
        for count, limit in ((address, ADDRESS), (both, NAME_AND_ADDRESS)):
            if count.failures + this > limit.failures:
                raise TooManyFailures(retry_after=count.secs)
        if name.failures + this > NAME.failures and both.failures + this > 1:
            raise TooManyFailures(retry_after=min(name.secs, both.secs))

    def succeeded(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE accounts_attempts SET count = greatest(count - 1, 0)"
                " WHERE key = ANY(%s) AND until > now()",
                [[self.address, self.name]],
            )
            cursor.execute("DELETE FROM accounts_attempts WHERE key = %s", [self.both])


def count_bad_token(*, address: str, token_key: str) -> None:
    """Count a token that there isn't. Raises TooManyFailures beyond the limit."""
    where = network_of(address)
    for key, limit in (
        (_key("token", where), ADDRESS),
        (_key("token", where, token_key), NAME_AND_ADDRESS),
    ):
        count = _count({key: limit})[key]
        if count.failures > limit.failures:
            raise TooManyFailures(retry_after=count.secs)


def network_of(address: str) -> str:
    """An IPv4 address; of IPv6 the /64, all of whose addresses one host may have."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


class Count(NamedTuple):
    failures: int
    secs: int
    """Until it starts anew."""


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()


_LEFT = "ceil(extract(epoch FROM until - now()))::int"


def _counts(keys: Iterable[str]) -> dict[str, Count]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT key, count, {_LEFT} FROM accounts_attempts"  # noqa: S608 (a constant)
            " WHERE key = ANY(%s) AND until > now()",
            [list(keys)],
        )
        return {key: Count(count, max(1, secs)) for key, count, secs in cursor.fetchall()}


def _count(limits: Mapping[str, Limit]) -> dict[str, Count]:
    """Add one to each; what that makes them. In one order, so that two can't wait crosswise."""
    ordered = sorted(limits)
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM accounts_attempts WHERE key IN (SELECT key FROM accounts_attempts"
            " WHERE until < now() ORDER BY until LIMIT %s FOR UPDATE SKIP LOCKED)",
            [PURGED],
        )
        cursor.execute(
            "INSERT INTO accounts_attempts AS old (key, count, until)"  # noqa: S608 (a constant)
            " SELECT key, 1, now() + make_interval(secs => secs)"
            " FROM unnest(%s::text[], %s::int[]) AS new (key, secs) ORDER BY key"
            " ON CONFLICT (key) DO UPDATE SET"
            " count = CASE WHEN old.until < now() THEN 1 ELSE old.count + 1 END,"
            " until = CASE WHEN old.until < now() THEN excluded.until ELSE old.until END"
            f" RETURNING key, count, {_LEFT}",
            [ordered, [limits[key].secs for key in ordered]],
        )
        return {key: Count(count, max(1, secs)) for key, count, secs in cursor.fetchall()}
