"""What a user has used of each quota, and when some of it frees."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

_LOCK = """
    INSERT INTO quotas_usage (user_id) VALUES (%s)
    ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id
"""

_READ = """
    WITH unfinished AS MATERIALIZED (
        -- By the index of what is unfinished, however long a user's history is.
        SELECT owner_id, status FROM executions_execution
        WHERE status IN ('queued', 'pulling', 'running')
    )
    SELECT
        (SELECT count(*) FROM unfinished
            WHERE status = 'queued' AND owner_id = %(user)s) AS queued,
        (SELECT count(*) FROM unfinished
            WHERE status <> 'queued' AND owner_id = %(user)s) AS claimed,
        coalesce(hour.runs, 0)::bigint, hour.oldest,
        (SELECT coalesce(sum(cpu_ms), 0) FROM quotas_dayofcpu
            WHERE user_id = %(user)s
            AND day = (statement_timestamp() AT TIME ZONE 'UTC')::date)::bigint AS cpu_ms,
        statement_timestamp()
    FROM (SELECT sum(runs) AS runs, min(minute) AS oldest FROM quotas_minuteofruns
        WHERE user_id = %(user)s AND minute > statement_timestamp() - interval '60 minutes') AS hour
"""

_COUNT = """
    WITH past AS (
        DELETE FROM quotas_minuteofruns
        WHERE user_id = %(user)s AND minute < statement_timestamp() - interval '2 hours'
    )
    INSERT INTO quotas_minuteofruns (user_id, minute, runs)
    VALUES (%(user)s, date_trunc('minute', statement_timestamp()), 1)
    ON CONFLICT (user_id, minute) DO UPDATE SET runs = quotas_minuteofruns.runs + 1
"""

_STORED = """
    SELECT coalesce(sum(blob.size), 0)::bigint, count(*)
    FROM filestore_storedfile file JOIN filestore_blob blob ON blob.id = file.blob_id
    WHERE file.owner_id = %s
"""


@dataclass(frozen=True, slots=True)
class Used:
    queued: int
    claimed: int
    runs_of_hour: int
    oldest_minute: datetime | None
    cpu_ms: int
    now: datetime

    @property
    def hour_frees_at(self) -> datetime | None:
        """A minute counts until an hour after its beginning."""
        return self.oldest_minute + timedelta(hours=1) if self.oldest_minute else None

    @property
    def day_frees_at(self) -> datetime:
        """Midnight, UTC."""
        midnight = self.now.replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight + timedelta(days=1)

    def waiting(self, at_a_time: int | None) -> int:
        """Those beyond what may run together; without such a bound, whatever isn't taken yet."""
        if at_a_time is None:
            return self.queued
        return max(0, self.queued + self.claimed - at_a_time)


def lock(user_id: int) -> None:
    """Until the transaction ends nobody else is admitted in the name of this user."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK, [user_id])


def used(user_id: int) -> Used:
    with connection.cursor() as cursor:
        cursor.execute(_READ, {"user": user_id})
        return Used(*cursor.fetchone())


def count_run(user_id: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, {"user": user_id})


def stored(user_id: int) -> tuple[int, int]:
    """Bytes and files; contents at two paths count twice."""
    with connection.cursor() as cursor:
        cursor.execute(_STORED, [user_id])
        size, files = cursor.fetchone()
    return int(size), int(files)
