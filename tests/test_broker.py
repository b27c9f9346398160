"""The queue: woken rather than polled, each message to one taker, none lost with a taker."""

import threading
import time
from functools import partial

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone
from django_q.models import OrmQ

from executions import broker as brokers
from executions.broker import ListenBroker

pytestmark = pytest.mark.django_db(transaction=True)


def _enqueue(text: str) -> None:
    """In a thread of its own."""
    ListenBroker("boxer").enqueue(text)
    connections.close_all()


@pytest.fixture
def broker() -> ListenBroker:
    return ListenBroker("boxer")


def test_messages_come_in_the_order_of_their_writing(broker: ListenBroker) -> None:
    ids = [broker.enqueue(f"m{n}") for n in range(3)]
    assert [broker.take() for _ in range(4)] == [
        *zip(ids, ("m0", "m1", "m2"), strict=True),
        None,
    ]


def test_a_message_of_a_transaction_that_fails_was_never_there(broker: ListenBroker) -> None:
    with transaction.atomic():
        broker.enqueue("never")
        transaction.set_rollback(True)
    assert broker.dequeue(0.1) is None


def test_a_commit_wakes_the_waiting_taker_at_once(broker: ListenBroker) -> None:
    writer = threading.Timer(0.3, partial(_enqueue, "woken"))
    writer.start()
    began = time.monotonic()
    messages = broker.dequeue(20.0)
    waited = time.monotonic() - began
    writer.join()
    assert messages is not None
    assert messages[0][1] == "woken"
    assert waited < 10.0  # half of the time-out: it was woken


def test_a_message_between_the_look_and_the_wait_is_not_slept_over(
    broker: ListenBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = broker.take

    def take_then_write() -> tuple[int, str] | None:
        monkeypatch.setattr(broker, "take", take)
        found = take()
        thread = threading.Thread(target=partial(_enqueue, "late"))
        thread.start()
        thread.join()
        return found

    monkeypatch.setattr(broker, "take", take_then_write)
    began = time.monotonic()
    assert broker.dequeue(20.0) is not None
    assert time.monotonic() - began < 10.0


def test_fifty_takers_share_twenty_messages_without_a_double(broker: ListenBroker) -> None:
    for number in range(20):
        broker.enqueue(str(number))
    taken: list[str] = []

    def taker() -> None:
        if message := ListenBroker("boxer").take():
            taken.append(message[1])
        connections.close_all()

    threads = [threading.Thread(target=taker) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken, key=int) == [str(number) for number in range(20)]


def test_a_dead_takers_message_shows_up_again(
    broker: ListenBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers, "LEASE_SECS", 0.2)
    broker.enqueue("once more")
    assert broker.take() is not None
    assert broker.take() is None
    time.sleep(0.3)
    assert broker.take() is not None


def test_a_message_is_put_back_for_the_next(broker: ListenBroker) -> None:
    message_id = broker.enqueue("back")
    broker.take()
    broker.release(message_id)
    assert broker.take() == (message_id, "back")


def test_a_kept_message_outlives_its_lease(broker: ListenBroker) -> None:
    message_id = broker.enqueue("long")
    broker.take()
    broker.keep(message_id)
    lock = OrmQ.objects.get(pk=message_id).lock
    assert lock is not None
    assert (lock - timezone.now()).total_seconds() > 60


def test_it_listens_again_on_a_new_connection(broker: ListenBroker) -> None:
    assert broker.dequeue(0.05) is None
    connection.close()
    thread = threading.Timer(0.3, partial(_enqueue, "after"))
    thread.start()
    began = time.monotonic()
    assert broker.dequeue(20.0) is not None
    assert time.monotonic() - began < 10.0
    thread.join()
