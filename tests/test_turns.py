"""Turns: who waits gets theirs, however many another has queued."""

import threading
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django_q.models import OrmQ
from django_q.signing import SignedPackage

from executions import services
from executions.broker import ListenBroker
from executions.models import Execution, Outcome
from executions.quotas.models import Quota
from executions.services import Ending
from tests.test_quotas import end, fresh, submit
from tests.test_services import HOST

pytestmark = pytest.mark.django_db(transaction=True)
__all__ = ["fresh"]


def take() -> str | None:
    """The run whose message a worker host is given."""
    message = ListenBroker("boxer").take()
    return None if message is None else str(SignedPackage.loads(message[1])["args"][0])


def turns(count: int) -> Iterator[str]:
    """The owners of the next runs, each run to its end."""
    for _ in range(count):
        exec_id = take()
        assert exec_id is not None
        end(exec_id)
        yield Execution.objects.get(exec_id=exec_id).owner.username


def test_a_hundred_of_one_delay_the_first_of_another_by_one_run_at_most(
    alice: User, bob: User
) -> None:
    for _ in range(100):
        submit(alice)
    assert list(turns(5)) == ["alice"] * 5
    submit(bob)
    assert "bob" in list(turns(2))
    assert list(turns(94)) == ["alice"] * 94
    assert take() is None


def test_who_comes_back_has_saved_up_nothing(alice: User, bob: User) -> None:
    for _ in range(20):
        submit(alice)
    assert list(turns(10)) == ["alice"] * 10
    for _ in range(10):
        submit(bob)
    order = list(turns(10))
    assert order.count("alice") == order.count("bob") == 5


def test_a_weight_is_so_many_turns(alice: User, bob: User) -> None:
    Quota.objects.create(user=alice, weight=3)
    for _ in range(30):
        submit(alice)
        submit(bob)
    order = list(turns(24))
    assert 17 <= order.count("alice") <= 19


def test_ones_own_runs_go_by_priority(alice: User) -> None:
    low, high = submit(alice), submit(alice)
    Execution.objects.filter(exec_id=high).update(priority=1)
    assert [take(), take()] == [high, low]


def test_who_runs_as_many_as_they_may_is_passed_over(alice: User, bob: User) -> None:
    Quota.objects.create(user=alice, runs_at_a_time=2)
    first, second, third = (submit(alice) for _ in range(3))
    for expected in (first, second):
        assert take() == expected
    services.claim(exec_id=first, host_id=HOST, worker="w1")  # the other is on its way to a worker
    assert take() is None
    other = submit(bob)
    assert take() == other
    end_claimed(first)
    assert take() == third


def end_claimed(exec_id: str) -> None:
    execution = Execution.objects.get(exec_id=exec_id)
    ending = Ending(outcome=Outcome.EXITED, exit_code=0)
    assert services.finish(execution=execution, ending=ending)


def test_the_end_of_a_run_wakes_the_taker_for_the_next(alice: User) -> None:
    Quota.objects.create(user=alice, runs_at_a_time=1)
    first, second = submit(alice), submit(alice)
    assert take() == first
    broker = ListenBroker("boxer")
    assert broker.dequeue(0.1) is None

    def finish() -> None:
        end(first)
        connections.close_all()

    timer = threading.Timer(0.3, finish)
    timer.start()
    found = broker.dequeue(60.0)
    timer.join()
    assert found is not None
    assert SignedPackage.loads(found[0][1])["args"][0] == second


def test_takers_at_once_do_not_exceed_the_runs_at_a_time(alice: User) -> None:
    Quota.objects.create(user=alice, runs_at_a_time=3)
    for _ in range(20):
        submit(alice)
    taken: list[str] = []

    def taker() -> None:
        if exec_id := take():
            taken.append(exec_id)
        connections.close_all()

    threads = [threading.Thread(target=taker) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 3
    assert OrmQ.objects.count() == 20
