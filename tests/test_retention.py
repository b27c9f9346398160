"""What ended long ago is removed, with its files, as the setting and quotas say."""

import io
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now

from executions import hosts, retention, services
from executions.actor import Actor
from executions.audit.models import Entry
from executions.batches import services as batches
from executions.batches.models import Batch
from executions.batches.requests import BatchRequest, CaseRequest
from executions.models import Execution, new_exec_id
from executions.quotas.models import Quota
from executions.sandbox.spec import Limits
from filestore import services as filestore
from filestore.models import Blob, StoredFile

Submit = Callable[..., Execution]


def request() -> services.RunRequest:
    limits = Limits(1.0, 64, 16, 5, 64)
    return services.RunRequest(
        new_exec_id(), "busybox", ("true",), (), "/", (), "none", False, limits
    )


def age(days: int, *executions: Execution) -> None:
    rows = Execution.objects.filter(pk__in=[one.pk for one in executions])
    rows.update(finished_at=Now() - timedelta(days=days))


@pytest.fixture
def ended(transactional_db: None) -> Submit:
    hosts.started(host_id=str(uuid.uuid4()), name="here", workers=2, runsc_version="1")

    def ended(owner: User, days: int) -> Execution:
        asked = request()
        services.submit(actor=Actor(owner.pk, owner.username), request=asked)
        services.withdraw(exec_id=asked.exec_id)
        execution = Execution.objects.get(exec_id=asked.exec_id)
        age(days, execution)
        return execution

    return ended


def left() -> set[str]:
    return set(Execution.objects.values_list("exec_id", flat=True))


def test_so_many_stay_as_the_setting_and_a_quota_say(
    ended: Submit, alice: User, bob: User, settings: Any
) -> None:
    settings.BOXER_RETENTION_RUNS = 3
    Quota.objects.create(user=bob, retention_runs=0)
    alices = [ended(alice, 0).exec_id for _ in range(5)]
    bobs = {ended(bob, 0).exec_id for _ in range(5)}
    waiting = request()
    services.submit(actor=Actor(alice.pk, "alice"), request=waiting)
    assert retention.retire() == 3
    assert left() == {*alices[-2:], waiting.exec_id} | bobs
    assert retention.retire() == 0


def test_nothing_goes_unless_it_is_asked_for(ended: Submit, alice: User) -> None:
    ended(alice, 4000)
    assert retention.retire() == 0
    assert Execution.objects.count() == 1


def test_what_is_old_goes_with_its_files_and_what_runs_stays(
    ended: Submit, alice: User, settings: Any
) -> None:
    settings.BOXER_RETENTION_DAYS = 30
    old, young = ended(alice, 31), ended(alice, 29)
    path = f"{services.output_directory(old.exec_id)}left.txt"
    filestore.store(owner_id=alice.pk, path=path, source=io.BytesIO(b"left"))
    waiting = request()
    services.submit(actor=Actor(alice.pk, "alice"), request=waiting)
    assert retention.retire() == 1
    assert left() == {young.exec_id, waiting.exec_id}
    assert not StoredFile.objects.exists()
    assert not Blob.objects.exists()
    entry = Entry.objects.get(verb="run_deleted")
    assert (entry.object_id, entry.username) == (old.exec_id, "local:retention")
    assert retention.retire() == 0


def test_a_quota_has_its_own_days(
    ended: Submit, alice: User, bob: User, anonymous: User, settings: Any
) -> None:
    settings.BOXER_RETENTION_DAYS = 30
    Quota.objects.create(user=alice, retention_days=5)
    Quota.objects.create(user=bob, retention_days=0)
    ended(alice, 6)
    kept = {ended(alice, 4), ended(bob, 400), ended(anonymous, 6)}
    ended(anonymous, 31)
    assert retention.retire() == 2
    assert left() == {one.exec_id for one in kept}


def test_much_goes_in_batches(
    ended: Submit, alice: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.BOXER_RETENTION_DAYS = 1
    monkeypatch.setattr(retention, "AT_ONCE", 3)
    for _ in range(5):
        ended(alice, 2)
    assert [retention.retire() for _ in range(3)] == [3, 2, 0]


def test_a_batch_goes_after_its_runs(ended: Submit, alice: User, settings: Any) -> None:
    settings.BOXER_RETENTION_DAYS = 1
    asked = BatchRequest("batch-old", [CaseRequest(request()), CaseRequest(request())])
    batches.submit(actor=Actor(alice.pk, "alice"), request=asked)
    Batch.objects.update(created_at=Now() - timedelta(days=2))
    first, second = Execution.objects.order_by("pk")
    services.withdraw(exec_id=first.exec_id)
    age(2, first)
    assert retention.retire() == 1
    assert Batch.objects.exists()
    services.withdraw(exec_id=second.exec_id)
    age(2, second)
    assert retention.retire() == 1
    assert not Batch.objects.exists()
