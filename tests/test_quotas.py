"""Quotas: whose holds, what is refused with which answer, and that a crowd can't pass one."""

import io
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib import import_module

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.db import IntegrityError, connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from executions import hosts, services
from executions.actor import Actor
from executions.errors import HostNetworkForbidden, QuotaExceeded, QuotaForbids
from executions.models import Execution, Outcome
from executions.quotas import known
from executions.quotas.admitting import OverCeiling
from executions.quotas.models import MinuteOfRuns, Quota
from executions.quotas.terms import terms_of
from executions.sandbox.spec import Limits
from executions.services import Ending
from filestore import services as filestore
from filestore.errors import StorageQuotaExceeded
from filestore.models import Blob, StoredFile
from tests.test_services import HOST, request

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """A database is emptied after its test; what was known of it must be gone too."""
    known.forget()
    hosts.started(host_id=HOST, name="here", workers=2, runsc_version="1")
    yield
    known.forget()


def submit(user: User, **changes: object) -> str:
    asked = request(**changes)
    services.submit(actor=Actor(user.pk, user.username), request=asked)
    return asked.exec_id


def end(exec_id: str, cpu_ms: int = 0) -> None:
    claimed = services.claim(exec_id=exec_id, host_id=HOST, worker="w1")
    assert claimed is not None
    ending = Ending(outcome=Outcome.EXITED, exit_code=0, cpu_ms=cpu_ms)
    assert services.finish(execution=claimed, ending=ending)


def at_once(count: int, act: Callable[[int], object]) -> list[Exception]:
    """What `count` threads that start together were refused with."""
    refused: list[Exception] = []
    barrier = threading.Barrier(count)

    def one(number: int) -> None:
        try:
            barrier.wait(60)
            act(number)
        except Exception as error:  # noqa: BLE001 (all of them are looked at)
            refused.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return refused


def stored(user: User, path: str, content: bytes) -> StoredFile:
    return filestore.store(owner_id=user.pk, path=path, source=io.BytesIO(content))


def test_the_nearest_quota_decides_field_by_field(alice: User) -> None:
    small, large = Group.objects.create(name="small"), Group.objects.create(name="large")
    alice.groups.add(small, large)
    Quota.objects.create(everybody=True, runs_queued=1, memory_mb=1, stored_files=1, nofile=9)
    Quota.objects.create(group=small, memory_mb=2, stored_files=2, networks=["none"])
    Quota.objects.create(group=large, memory_mb=3, networks=["host"])
    Quota.objects.create(user=alice, stored_files=0)
    terms = terms_of(alice.pk)
    assert terms is not None
    assert (terms.runs_queued, terms.memory_mb, terms.stored_files) == (1, 3, 0)
    assert sorted(terms.networks or ()) == ["host", "none"]
    assert (terms.nofile, terms.pids_limit) == (9, None)


def test_a_quota_is_for_exactly_one(alice: User) -> None:
    for whom in ({}, {"user": alice, "everybody": True}):
        with pytest.raises(IntegrityError):
            Quota.objects.create(**whom)
    Quota.objects.create(everybody=True)
    with pytest.raises(IntegrityError):
        Quota.objects.create(everybody=True)


def test_fifty_requests_at_once_cannot_pass_a_limit_of_three(alice: User) -> None:
    Quota.objects.create(user=alice, runs_at_a_time=3, runs_queued=0)
    refused = at_once(50, lambda _: submit(alice))
    assert Execution.objects.filter(owner=alice).count() == 3
    assert len(refused) == 47
    assert {type(error) for error in refused} == {QuotaExceeded}


def test_nor_a_rate_of_three(alice: User) -> None:
    Quota.objects.create(user=alice, runs_an_hour=3)
    assert len(at_once(20, lambda _: submit(alice))) == 17


def test_runs_at_a_time_wait_until_the_queue_is_full(alice: User, bob: User) -> None:
    Quota.objects.create(user=alice, runs_at_a_time=1, runs_queued=2)
    first, *_ = [submit(alice) for _ in range(3)]
    with pytest.raises(QuotaExceeded, match="runs_queued is used up: 2 of 2"):
        submit(alice)
    submit(bob)
    end(first)
    submit(alice)


def test_runs_of_an_hour_survive_their_deletion_and_free(alice: User) -> None:
    Quota.objects.create(user=alice, runs_an_hour=1)
    submit(alice)
    Execution.objects.all().delete()
    with pytest.raises(QuotaExceeded) as refused:
        submit(alice)
    assert 3000 < refused.value.retry_after <= 3600
    assert refused.value.details["quota"]["name"] == "runs_an_hour"  # type: ignore[index]
    MinuteOfRuns.objects.update(minute=timezone.now() - timedelta(minutes=61))
    submit(alice)


def test_cpu_seconds_of_a_day_are_counted_at_the_end_of_each_run(alice: User) -> None:
    end(submit(alice), cpu_ms=700)
    end(submit(alice), cpu_ms=300)
    Execution.objects.all().delete()
    Quota.objects.create(user=alice, cpu_secs_a_day=1)
    with pytest.raises(QuotaExceeded, match="cpu_secs_a_day is used up: 1 of 1"):
        submit(alice)
    Quota.objects.update(cpu_secs_a_day=2)
    submit(alice)


def test_networks_images_and_ceilings(alice: User) -> None:
    Quota.objects.create(
        user=alice, networks=["none"], images=["docker.io/library/busy*"], memory_mb=64
    )
    alice.user_permissions.add(Permission.objects.get(codename="use_host_network"))
    submit(alice)
    with pytest.raises(QuotaForbids, match="network 'host'"):
        submit(alice, network="host")
    with pytest.raises(QuotaForbids, match=r"docker\.io/library/python:latest"):
        submit(alice, image="python")
    with pytest.raises(OverCeiling) as refused:
        submit(alice, limits=Limits(1.0, 65, 16, 5, 64))
    assert refused.value.fields == {"limits.memory_mb": ["Your quota allows at most 64."]}


def test_the_hosts_network_needs_a_permission(
    alice: User, anonymous: User, settings: pytest.FixtureRequest
) -> None:
    with pytest.raises(HostNetworkForbidden):
        submit(alice, network="host")
    alice.user_permissions.add(Permission.objects.get(codename="use_host_network"))
    submit(alice, network="host")
    with pytest.raises(HostNetworkForbidden):
        submit(anonymous, network="host")
    settings.BOXER_ANONYMOUS_HOST_NETWORK = True  # type: ignore[attr-defined]
    submit(anonymous, network="host")


def test_storage_is_held_to_its_quota(alice: User, bob: User) -> None:
    Quota.objects.create(user=alice, stored_bytes=10, stored_files=2)
    stored(alice, "a", b"12345678")
    with pytest.raises(StorageQuotaExceeded, match="8 of 10 bytes, and this needs 3 more"):
        stored(alice, "b", b"abc")
    assert not Blob.objects.filter(size=3, state="ready").exists()
    stored(alice, "a", b"1234567890")
    stored(alice, "a", b"1")
    stored(alice, "b", b"2")
    with pytest.raises(StorageQuotaExceeded, match="stored_files"):
        stored(alice, "c", b"")
    stored(bob, "c", b"12345678901")


def test_uploads_at_once_cannot_pass_the_quota(alice: User) -> None:
    Quota.objects.create(user=alice, stored_files=3)
    refused = at_once(20, lambda number: stored(alice, f"f{number}", str(number).encode()))
    assert StoredFile.objects.filter(owner=alice).count() == 3
    assert [type(error) for error in refused] == [StorageQuotaExceeded] * 17


def test_without_a_quota_nothing_is_asked(alice: User) -> None:
    submit(alice)
    with CaptureQueriesContext(connection) as captured:
        submit(alice)
    assert len(captured) == 1
    Quota.objects.create(user=alice, runs_an_hour=99)
    submit(alice)
    with CaptureQueriesContext(connection) as captured:
        submit(alice)
    # BEGIN and COMMIT; quota, lock, usage, count; the run
    assert len(captured) <= 7, [query["sql"] for query in captured]


def test_over_http(anonymous: User, client: Client) -> None:
    Quota.objects.create(
        user=anonymous, runs_at_a_time=5, runs_an_hour=1, stored_bytes=4, networks=["none"],
        memory_mb=64,
    )  # fmt: skip
    submit(anonymous)

    def run(**body: object) -> tuple[int, dict[str, object], str]:
        body = {"image": "busybox", "cmd": ["true"], "limits": {"memory_mb": 64}, **body}
        answer = client.post("/run", body, content_type="application/json")
        return answer.status_code, answer.json(), answer.get("Retry-After", "")

    status, body, retry_after = run()
    assert (status, body["code"]) == (429, "quota_exceeded")
    assert 0 < int(retry_after) <= 3600
    assert body["quota"]["limit"] == body["quota"]["used"] == 1  # type: ignore[index]
    assert run(network="host")[:1] == (403,)
    status, body, _ = run(limits={"memory_mb": 65})
    assert (status, body["code"]) == (400, "over_ceiling")
    answer = client.post("/files", {"path": "a", "file": io.BytesIO(b"12345")})
    assert (answer.status_code, answer.json()["code"]) == (413, "storage_quota")
    told = client.get("/api/v1/quota/").json()
    assert told["runs_an_hour"]["used"] == told["runs_an_hour"]["limit"] == 1
    assert told["runs_an_hour"]["frees_at"] is not None
    assert told["runs_at_a_time"] == {"limit": 5, "used": 0.0, "frees_at": None}
    assert told["ceilings"]["memory_mb"] == 64
    assert told["networks"] == ["none"]


def test_operators_may_change_quotas_in_the_admin_and_others_may_not(
    alice: User, bob: User, client: Client
) -> None:
    operators, _ = Group.objects.get_or_create(name="Operators")
    operators.permissions.set(Permission.objects.filter(content_type__app_label="quotas"))
    alice.groups.add(operators)
    form = {"user": bob.pk, "runs_an_hour": 3}
    for user, made in ((bob, 0), (alice, 1)):
        User.objects.filter(pk=user.pk).update(is_staff=True)
        client.force_login(User.objects.get(pk=user.pk))
        answer = client.post("/admin/quotas/quota/add/", form)
        assert answer.status_code == (302 if made else 403)
        assert Quota.objects.count() == made
    quota = Quota.objects.get()
    assert (quota.user, quota.runs_an_hour, quota.networks, quota.images) == (bob, 3, None, None)


def test_the_migration_gives_operators_the_permissions(alice: User) -> None:
    Group.objects.all().delete()
    migration = import_module("executions.quotas.migrations.0002_operators")
    with connection.schema_editor() as editor:
        migration.grant(apps, editor)
        migration.grant(apps, editor)
    alice.groups.add(Group.objects.get(name="Operators"))
    assert alice.has_perm("quotas.change_quota")
    assert (
        not Group.objects.get(name="Auditors").permissions.exclude(codename="view_quota").exists()
    )


def test_a_quota_of_another_is_not_told(alice: User, anonymous: User, client: Client) -> None:
    Quota.objects.create(user=alice, runs_an_hour=7)
    submit(alice)
    told = client.get("/api/v1/quota/").json()
    assert told["runs_an_hour"] == {"limit": None, "used": 0.0, "frees_at": None}
