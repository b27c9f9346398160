"""From an entrypoint's end to its batch's cases: once, whoever is killed or comes second."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connections

from executions import hosts
from executions import services as runs
from executions.actor import Actor
from executions.batches import queueing, services
from executions.batches.matching import MOST_OVERDUE, Matcher
from executions.batches.models import Batch, HeldInput, Phase, new_batch_id
from executions.batches.requests import BatchRequest, CaseRequest
from executions.errors import QueueFull, QuotaExceeded
from executions.models import Execution, Outcome, Status, new_exec_id
from executions.quotas.models import Quota
from executions.sandbox.spec import Limits

HOST = str(uuid.uuid4())


@pytest.fixture
def owner(transactional_db: None, anonymous: User) -> User:
    hosts.started(host_id=HOST, name="here", workers=2, runsc_version="1")
    return anonymous


def run(**changes: Any) -> runs.RunRequest:
    limits = Limits(1.0, 64, 16, 5, 64)
    plain = runs.RunRequest(new_exec_id(), "busybox", ("true",), (), "/", (), "none", False, limits)
    return replace(plain, **changes)


def submit(owner: User, cases: int = 3) -> Batch:
    asked = BatchRequest(
        new_batch_id(),
        [CaseRequest(run(env=("API_TOKEN=hush",), stdin=b"\x00\xff")) for _ in range(cases)],
        run(outputs=("*",)),
    )
    services.submit(actor=Actor(owner.pk, owner.username), request=asked)
    return Batch.objects.get(batch_id=asked.batch_id)


def end(batch: Batch, exit_code: int = 0) -> None:
    assert batch.entrypoint
    claimed = runs.claim(exec_id=batch.entrypoint.exec_id, host_id=HOST, worker="w")
    assert claimed
    assert runs.start(execution=claimed, image_digest="sha256:0", pull_ms=0, start_ms=0)
    ending = runs.Ending(outcome=Outcome.EXITED, exit_code=exit_code)
    assert runs.finish(execution=claimed, ending=ending)


def started(batch: Batch) -> int:
    return Execution.objects.filter(case__batch=batch).count()


def test_cases_wait_for_the_entrypoint_and_are_queued_once(owner: User) -> None:
    batch = submit(owner)
    assert queueing.advance() == 0
    assert (Execution.objects.count(), started(batch)) == (1, 0)
    waiting = b"".join(bytes(case.request or b"") for case in batch.cases.all())
    assert b"hush" not in waiting
    end(batch)
    assert [queueing.advance(), queueing.advance()] == [1, 0]
    assert started(batch) == 3
    case = batch.cases.select_related("execution__stdin").get(number=1)
    assert case.execution
    assert bytes(case.execution.stdin.data) == b"\x00\xff"
    assert case.execution.env == ["API_TOKEN=***"]
    assert not batch.cases.exclude(request=None).exists()


def test_two_keepers_queue_them_once(owner: User) -> None:
    batch = submit(owner, 20)
    end(batch)
    barrier = threading.Barrier(4)

    def advance(_: int) -> int:
        try:
            barrier.wait(60)
            return queueing.advance()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(advance, range(4))) == 1
    assert started(batch) == 20
    assert Execution.objects.count() == 21


def test_one_that_is_cut_off_has_queued_nothing(
    owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = submit(owner)
    end(batch)
    queue_case = queueing.queue_case
    done: list[int] = []

    def breaking(**given: Any) -> Execution:
        if len(done) == 2:
            raise OperationalError("terminated")
        done.append(1)
        return queue_case(**given)

    monkeypatch.setattr(queueing, "queue_case", breaking)
    with pytest.raises(OperationalError):
        queueing.advance()
    assert started(batch) == 0
    monkeypatch.undo()
    assert queueing.advance() == 1
    assert started(batch) == 3


def test_where_there_is_no_room_they_wait_and_say_so(owner: User, settings: Any) -> None:
    batch = submit(owner)
    end(batch)
    settings.BOXER_QUEUE_LIMIT = 2
    queueing.advance()
    batch.refresh_from_db()
    assert (batch.phase, started(batch)) == (Phase.BUILDING, 0)
    assert batch.error.startswith("waits to be queued: 2 runs are waiting already")
    assert queueing.advance() == 0  # not at once again
    settings.BOXER_QUEUE_LIMIT = 100
    Batch.objects.update(not_before=None)
    assert queueing.advance() == 1
    batch.refresh_from_db()
    assert (batch.phase, batch.error, started(batch)) == (Phase.QUEUED, "", 3)


@pytest.mark.parametrize("building", [True, False])
def test_a_batch_that_the_queue_has_no_room_for_is_refused_whole(
    owner: User, settings: Any, building: bool
) -> None:
    settings.BOXER_QUEUE_LIMIT = 2
    asked = BatchRequest(
        new_batch_id(), [CaseRequest(run()) for _ in range(3)], run() if building else None
    )
    with pytest.raises(QueueFull):
        services.submit(actor=Actor(owner.pk, owner.username), request=asked)
    assert not Execution.objects.exists()
    assert not Batch.objects.exists()
    assert not HeldInput.objects.exists()


@pytest.mark.parametrize("building", [True, False])
def test_a_batch_beyond_a_quota_is_refused_whole(alice: User, owner: User, building: bool) -> None:
    Quota.objects.create(user=alice, runs_an_hour=2)
    asked = BatchRequest(
        new_batch_id(), [CaseRequest(run()) for _ in range(3)], run() if building else None
    )
    with pytest.raises(QuotaExceeded):
        services.submit(actor=Actor(alice.pk, "alice"), request=asked)
    assert not Execution.objects.exists()
    assert not Batch.objects.exists()
    small = BatchRequest(new_batch_id(), [CaseRequest(run()), CaseRequest(run())])
    services.submit(actor=Actor(alice.pk, "alice"), request=small)
    assert Execution.objects.count() == 2


def test_an_entrypoint_that_fails_or_is_removed_skips_the_cases(owner: User) -> None:
    failed, removed = submit(owner), submit(owner)
    end(failed, exit_code=2)
    assert removed.entrypoint
    runs.withdraw(exec_id=removed.entrypoint.exec_id)
    actor = Actor(owner.pk, owner.username)
    runs.remove(actor=actor, execution=removed.entrypoint)
    assert queueing.advance() == 2
    for batch, why in ((failed, "didn't succeed: exited with 2"), (removed, "was removed")):
        batch.refresh_from_db()
        assert (batch.phase, started(batch)) == (Phase.SKIPPED, 0)
        assert batch.error.endswith(why)
        assert not batch.cases.exclude(request=None).exists()


def test_a_cancelled_batch_isnt_queued_by_the_entrypoints_end(owner: User) -> None:
    batch = submit(owner)
    services.cancel(actor=Actor(owner.pk, owner.username), batch=batch)
    assert queueing.advance() == 0
    assert Execution.objects.get().status == Status.CANCELLED


def test_an_expression_that_runs_wild_is_ended_and_others_still_work() -> None:
    matcher = Matcher()
    try:
        assert matcher.matches(r"\d+", "123") is True
        assert matcher.matches("(a+)+b", "a" * 60) is None
        assert matcher.matches(r"\d+", "x") is False
        for _ in range(MOST_OVERDUE - 1):
            assert matcher.matches("(a+)+b", "a" * 60) is None
        assert matcher.matches(r"\d+", "123") is None
    finally:
        matcher.close()
