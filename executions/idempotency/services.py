"""Does a thing once for each key of a user, however often and however closely it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass

from django.db import connection, transaction

from executions.errors import IdempotencyGone, IdempotencyMismatch
from executions.idempotency.models import Key

KEPT_HOURS = 24
FORGET_AT_ONCE = 1000
MOST_FORGOTTEN = 50 * FORGET_AT_ONCE
"""Of one call: a keeper that was away for long has other duties too."""

# Of two at the same instant, the second waits in this statement until the first has committed or
# rolled back. A row that is too old to count is taken over.
_TAKE = f"""
    INSERT INTO idempotency_key (owner_id, key, fingerprint, created_at, made)
    VALUES (%(owner_id)s, %(key)s, %(fingerprint)s, now(), '')
    ON CONFLICT (owner_id, key) DO UPDATE
        SET fingerprint = excluded.fingerprint, created_at = excluded.created_at, made = ''
        WHERE idempotency_key.created_at < now() - interval '{KEPT_HOURS} hours'
    RETURNING id
"""  # noqa: S608 (a number of our own)
_FORGET = f"""
    DELETE FROM idempotency_key WHERE id IN (
        SELECT id FROM idempotency_key WHERE created_at < now() - interval '{KEPT_HOURS} hours'
        ORDER BY created_at LIMIT {FORGET_AT_ONCE}
    )
"""  # noqa: S608 (numbers of our own)


@dataclass(frozen=True, slots=True)
class Made:
    id: str
    replayed: bool = False

    def gone(self) -> IdempotencyGone:
        """For who doesn't find it."""
        return IdempotencyGone("what the first request with this Idempotency-Key made was removed")


def once(*, owner_id: int, key: str, fingerprint: bytes, make: Callable[[], str]) -> Made:
    """What `make` gave, or what it gave to the first request with this key within 24 hours.

    The key commits together with what `make` writes; when it raises there is neither. Raises
    IdempotencyMismatch when the first request was another one.
    """
    values: dict[str, int | str | bytes] = {
        "owner_id": owner_id,
        "key": key,
        "fingerprint": fingerprint,
    }
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_TAKE, values)
            taken = cursor.fetchone()
        if taken is None:
            return _again(Key.objects.get(owner_id=owner_id, key=key), fingerprint)
        made = make()
        Key.objects.filter(pk=taken[0]).update(made=made)
    return Made(made)


def _again(first: Key, fingerprint: bytes) -> Made:
    if bytes(first.fingerprint) != fingerprint:
        raise IdempotencyMismatch("this Idempotency-Key was used for another request")
    return Made(first.made, replayed=True)


def forget_old() -> int:
    """Drop the keys that don't count any more, in small batches; how many those were."""
    forgotten = 0
    while forgotten < MOST_FORGOTTEN:
        with connection.cursor() as cursor:
            cursor.execute(_FORGET)
            forgotten += cursor.rowcount
            if cursor.rowcount < FORGET_AT_ONCE:
                break
    return forgotten
