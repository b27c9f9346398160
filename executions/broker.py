"""django-q2's ORM queue, woken by LISTEN and read with SKIP LOCKED instead of being polled."""

from datetime import timedelta

from django.db import connections, transaction
from django.utils import timezone
from django_q.brokers.orm import ORM
from django_q.conf import Conf
from django_q.models import OrmQ

from executions.quotas.known import any_quota
from executions.quotas.turns import TAKE, TURNS_LOCK

CHANNEL = "boxer_queue"

LEASE_SECS = 10.0
"""How long a message taken from the queue stays hidden: from there to its claim takes milliseconds.
A message whose taker died shows up again after it."""

_ENQUEUE = f"""
    WITH message AS (
        INSERT INTO django_q_ormq (key, payload, lock) VALUES (%s, %s, now()) RETURNING id
    )
    SELECT id, pg_notify('{CHANNEL}', '') FROM message
"""  # noqa: S608 (both names are constants)


class ListenBroker(ORM):  # type: ignore[misc]
    """Messages commit with what they are about, wake a listener at once, and go to one taker."""

    _listening: object = None

    def enqueue(self, task: str) -> int:
        """Add a signed package within the caller's transaction; the message's id."""
        with connections[Conf.ORM].cursor() as cursor:
            cursor.execute(_ENQUEUE, [self.list_key or Conf.CLUSTER_NAME, task])
            return int(cursor.fetchone()[0])

    def dequeue(self, timeout: float = 5.0) -> list[tuple[int, str]] | None:
        """The next message that nobody has, waiting up to `timeout` seconds for one.

        LISTEN comes before the look, so a message that is committed in between still wakes us.
        """
        self.get_connection()
        self._listen()
        message = self.take()
        if message is None and self._wait(timeout):
            message = self.take()
        return [message] if message else None

    def take(self) -> tuple[int, str] | None:
        """The next in turn, see executions/quotas/turns.py."""
        values = {"lease": LEASE_SECS, "key": self.list_key}
        with connections[Conf.ORM].cursor() as cursor:
            if not any_quota():
                cursor.execute(TAKE, values)
                row = cursor.fetchone()
            else:
                with transaction.atomic(using=Conf.ORM):
                    # A statement of its own: the next one has to see what the last taker wrote.
                    cursor.execute("SELECT pg_advisory_xact_lock(%s)", [TURNS_LOCK])
                    cursor.execute(TAKE, values)
                    row = cursor.fetchone()
        return (int(row[0]), str(row[1])) if row else None

    def keep(self, message_id: int) -> None:
        """Hide a message until its task must have ended: for tasks acknowledged at their end."""
        until = timezone.now() + timedelta(seconds=Conf.RETRY)
        OrmQ.objects.using(Conf.ORM).filter(pk=message_id).update(lock=until)

    def release(self, message_id: int) -> None:
        """Put a message back for the next taker."""
        OrmQ.objects.using(Conf.ORM).filter(pk=message_id).update(lock=timezone.now())

    def wake(self) -> None:
        """Let whoever waits for a message look, and see that it is to stop."""
        with connections[Conf.ORM].cursor() as cursor:
            cursor.execute(f"NOTIFY {CHANNEL}")

    def _listen(self) -> None:
        wrapper = connections[Conf.ORM]
        wrapper.ensure_connection()
        if self._listening is not wrapper.connection:
            with wrapper.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            self._listening = wrapper.connection

    def _wait(self, timeout: float) -> bool:
        """Whether a notification came within `timeout` seconds."""
        notifications = connections[Conf.ORM].connection.notifies(timeout=timeout, stop_after=1)
        return any(True for _ in notifications)
