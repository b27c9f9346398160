"""Deliveries: written down with the end, given to one worker each, tried for a day."""

import ipaddress
import json
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection, connections
from django.test import Client
from django.utils import timezone
from django_q.models import OrmQ
from django_q.signing import SignedPackage

from executions import hosts
from executions import services as executions
from executions.actor import Actor
from executions.audit.models import Entry
from executions.callbacks import delivering, services, signing
from executions.callbacks.errors import BadCallbackUrl
from executions.callbacks.models import CallbackSecret, Delivery, State
from executions.callbacks.sending import Result, Sender
from executions.models import Execution, Outcome
from executions.sealed.services import SealBroken
from executions.services import Ending
from tests.answers import error_of
from tests.receiver import Receiver, status

pytestmark = pytest.mark.django_db(transaction=True)

HOST = str(uuid.uuid4())
URL = "https://hook.example/"
SENDER = Sender(allowed=[ipaddress.ip_network("127.0.0.0/8")])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def execution(owner: User, url: str = URL) -> Execution:
    hosts.started(host_id=HOST, name="here", workers=1, runsc_version="1")
    return Execution.objects.create(
        owner=owner, image="busybox", cmd=["true"], labels={"ci": "7"}, callback_url=url,
        cpu_cores=1, memory_mb=64, pids_limit=16, wall_clock_secs=5, nofile=64,
    )  # fmt: skip


def ended(owner: User, url: str = URL) -> Delivery:
    """The delivery of a run that has just ended."""
    run = execution(owner, url)
    claimed = executions.claim(exec_id=run.exec_id, host_id=HOST, worker="w")
    assert claimed is not None
    ending = Ending(outcome=Outcome.EXITED, exit_code=3, stdout=b"not told", wall_ms=5)
    assert executions.finish(execution=claimed, ending=ending)
    return Delivery.objects.get(execution=run)


def deliver(delivery: Delivery, sender: Sender = SENDER) -> Delivery:
    delivering.deliver(str(delivery.pk), sender=sender)
    return Delivery.objects.get(pk=delivery.pk)


def make_due(delivery: Delivery) -> None:
    Delivery.objects.filter(pk=delivery.pk).update(due_at=timezone.now())


# ── Written down with the end ────────────────────────────────────────────────────────────────────


def test_however_a_run_ends_it_leaves_one_delivery(alice: User) -> None:
    finished = ended(alice)
    withdrawn = execution(alice)
    assert executions.withdraw(exec_id=withdrawn.exec_id)
    lost = execution(alice)
    for _ in range(executions.MOST_ATTEMPTS):
        assert executions.claim(exec_id=lost.exec_id, host_id=HOST, worker="w")
        assert not Delivery.objects.filter(execution=lost).exists(), "it hasn't ended"
        executions.reap_worker(host_id=HOST, worker="w")
    found = Delivery.objects.order_by("created_at")
    runs = [one.execution_id for one in found]
    assert runs == [finished.execution_id, withdrawn.pk, lost.pk]
    for one in found:
        assert (one.state, one.url, one.user_id) == (State.PENDING, URL, alice.pk)
        assert one.give_up_at - one.created_at == timedelta(days=1)


def test_an_end_that_is_rolled_back_leaves_none(alice: User) -> None:
    run = execution(alice)
    connection.cursor().execute("BEGIN")
    Execution.objects.filter(pk=run.pk).update(status="cancelled")
    assert Delivery.objects.count() == 1
    connection.cursor().execute("ROLLBACK")
    assert Delivery.objects.count() == 0


def test_without_a_url_there_is_none(alice: User) -> None:
    assert executions.withdraw(exec_id=execution(alice, "").exec_id)
    assert not Delivery.objects.exists()


# ── A try ────────────────────────────────────────────────────────────────────────────────────────


def test_a_receiver_gets_the_end_signed(alice: User, receiver: Receiver) -> None:
    delivery = deliver(ended(alice, receiver.url()))
    assert delivery.state == State.DELIVERED
    [got] = receiver.received
    assert got.is_signed_with(signing.secret_of(user_id=alice.pk))
    assert not got.is_signed_with("another")
    assert got.headers["boxer-delivery"] == str(delivery.pk)
    assert got.headers["boxer-event"] == "execution.ended"
    assert got.headers["content-type"] == "application/json"
    assert abs(int(got.headers["boxer-timestamp"]) - timezone.now().timestamp()) < 100
    told = json.loads(got.body)
    run = Execution.objects.get()
    assert told["exec_id"] == run.exec_id
    assert (told["status"], told["outcome"], told["exit_code"]) == ("finished", "exited", 3)
    assert told["labels"] == {"ci": "7"}
    assert told["finished_at"].endswith("Z")
    assert told["urls"]["callbacks"] == f"/api/v1/executions/{run.exec_id}/callbacks/"
    assert b"not told" not in got.body


def test_after_a_500_and_a_refused_connection_it_is_tried_again(
    alice: User, receiver: Receiver
) -> None:
    receiver.answers = [status(500, b"out of order")]
    delivery = ended(alice, receiver.url())
    before = timezone.now()
    delivery = deliver(delivery)
    assert delivery.state == State.PENDING
    assert timedelta(seconds=2) < delivery.due_at - before < timedelta(seconds=60)
    assert delivering.deliver(str(delivery.pk), sender=SENDER) is None, "it isn't due"
    url = delivery.url
    Delivery.objects.update(url="http://127.0.0.99:9999/")
    make_due(delivery)
    deliver(delivery)
    Delivery.objects.update(url=url)
    make_due(delivery)
    assert deliver(delivery).state == State.DELIVERED
    first, second, third = delivery.tries.all()
    assert (first.status, first.error, first.answer) == (500, "it answered 500", "out of order")
    assert (second.status, second.error[:13]) == (None, "no connection")
    assert (third.status, third.error) == (204, "")
    assert len({got.headers["boxer-delivery"] for got in receiver.received}) == 1
    assert len({got.body for got in receiver.received}) == 1


def test_it_is_given_up_after_a_day(alice: User) -> None:
    delivery = ended(alice)
    now, tries = delivery.created_at, 0
    while (claimed := services.claim(delivery_id=str(delivery.pk), now=now)) is not None:
        tries += 1
        services.record(delivery=claimed[0], attempt=claimed[1], result=Result(1, error="no"))
        delivery.refresh_from_db()
        if delivery.state == State.PENDING:
            assert now < delivery.due_at <= now + timedelta(hours=1)
        now = max(now, delivery.due_at)
    assert delivery.state == State.FAILED
    assert timedelta(hours=22) < now - delivery.created_at <= timedelta(days=1)
    assert 25 < tries < 80


def test_pauses_grow_and_differ() -> None:
    for tries in range(1, 40):
        drawn = {services.pause(tries).total_seconds() for _ in range(20)}
        longest = min(3600, 5 * 2 ** (tries - 1))
        assert len(drawn) > 1
        assert longest / 2 <= min(drawn) <= max(drawn) <= longest


def test_a_url_that_can_never_work_is_given_up_at_once(alice: User) -> None:
    delivery = deliver(ended(alice, "gopher://127.0.0.1/"))
    assert delivery.state == State.FAILED
    assert "https" in delivery.tries.get().error


def test_a_refused_address_is_tried_again_since_names_change(alice: User) -> None:
    sender = Sender(resolve=lambda _host, _port: ["169.254.169.254"])
    delivery = deliver(ended(alice), sender)
    assert delivery.state == State.PENDING
    assert delivery.tries.get().error == "hook.example isn't a public address"


# ── One worker each ──────────────────────────────────────────────────────────────────────────────


def test_of_many_workers_one_gets_it(alice: User) -> None:
    delivery, got = ended(alice), []
    gate = threading.Barrier(8)

    def worker() -> None:
        gate.wait(60)
        try:
            got.append(services.claim(delivery_id=str(delivery.pk)) is not None)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=worker) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == [False] * 7 + [True]
    assert delivery.tries.count() == 1


def test_a_dead_workers_lease_ends_and_its_try_is_seen(alice: User) -> None:
    delivery = ended(alice)
    now = timezone.now()
    assert services.claim(delivery_id=str(delivery.pk), now=now)
    soon, late = now + timedelta(seconds=20), now + timedelta(seconds=31)
    assert services.claim(delivery_id=str(delivery.pk), now=soon) is None
    assert services.enqueue_due(now=soon) == 0
    assert services.enqueue_due(now=late) == 1
    assert services.claim(delivery_id=str(delivery.pk), now=late)
    assert [one.error for one in delivery.tries.all()] == ["the worker died while it sent it", ""]


def test_a_due_delivery_has_one_message_which_its_claim_takes(alice: User) -> None:
    delivery = ended(alice)
    before = OrmQ.objects.count()
    assert [services.enqueue_due(), services.enqueue_due()] == [1, 0]
    delivery.refresh_from_db()
    package = SignedPackage.loads(OrmQ.objects.get(pk=delivery.message_id).payload)
    assert package["func"] == "executions.callbacks.tasks.deliver"
    assert package["args"] == (str(delivery.pk),)
    assert services.claim(delivery_id=str(delivery.pk))
    assert OrmQ.objects.count() == before
    assert services.enqueue_due() == 0


def test_users_take_turns_and_runs_keep_most_workers(alice: User, bob: User, settings: Any) -> None:
    settings.BOXER_WORKERS = 12
    for _ in range(5):
        ended(alice)
    bobs = ended(bob)
    assert services.enqueue_due() == 3
    assert services.enqueue_due() == 0
    queued = Delivery.objects.exclude(message_id=None)
    assert bobs in queued
    claimed = services.claim(delivery_id=str(bobs.pk))
    assert claimed is not None
    assert services.enqueue_due() == 0, "it is being sent"
    services.record(delivery=claimed[0], attempt=claimed[1], result=Result(1, 204))
    assert services.enqueue_due() == 1


def test_a_worker_that_sends_goes_on_with_what_is_due(
    alice: User, bob: User, receiver: Receiver
) -> None:
    first, *others = [ended(one, receiver.url()) for one in (alice, alice, bob, alice)]
    given, later = ended(alice, receiver.url()), ended(alice, receiver.url())
    Delivery.objects.filter(pk=later.pk).update(due_at=timezone.now() + timedelta(hours=1))
    message = OrmQ.objects.create(key="boxer", payload="", lock=timezone.now())
    Delivery.objects.filter(pk=given.pk).update(message_id=message.pk)
    assert delivering.drain(str(first.pk), sender=SENDER) == 4
    sent = [got.headers["boxer-delivery"] for got in receiver.received]
    assert sent[0] == str(first.pk)
    assert sorted(sent) == sorted(str(one.pk) for one in (first, *others))
    assert delivering.drain(str(first.pk), sender=SENDER) == 0


# ── For other senders ────────────────────────────────────────────────────────────────────────────


def test_something_else_can_be_sent(alice: User, receiver: Receiver) -> None:
    made = services.send(
        user_id=alice.pk, url=receiver.url(), event="review.published", payload={"stars": 5}
    )
    assert deliver(made).state == State.DELIVERED
    [got] = receiver.received
    assert json.loads(got.body) == {"event": "review.published", "stars": 5}
    assert got.is_signed_with(signing.secret_of(user_id=alice.pk))
    with pytest.raises(BadCallbackUrl):
        services.send(user_id=alice.pk, url="file:///x", event="e", payload={})


def test_old_ones_of_no_execution_are_forgotten(alice: User) -> None:
    kept = ended(alice)
    made = services.send(user_id=alice.pk, url=URL, event="e", payload={})
    Delivery.objects.update(created_at=timezone.now() - timedelta(days=31))
    services.forget_old()
    assert Delivery.objects.count() == 2, "it is still pending"
    Delivery.objects.filter(pk=made.pk).update(state=State.FAILED)
    services.forget_old()
    assert Delivery.objects.get() == kept


# ── Secrets ──────────────────────────────────────────────────────────────────────────────────────


def test_a_secret_is_made_once_sealed_and_each_users_own(alice: User, bob: User) -> None:
    secret = signing.secret_of(user_id=alice.pk)
    assert signing.secret_of(user_id=alice.pk) == secret
    assert signing.secret_of(user_id=bob.pk) != secret
    stored = CallbackSecret.objects.get(pk=alice.pk)
    assert secret.encode() not in bytes(stored.data)
    CallbackSecret.objects.filter(pk=bob.pk).update(data=stored.data)
    with pytest.raises(SealBroken):
        signing.secret_of(user_id=bob.pk)


def test_a_rotated_secret_signs_what_comes_after(alice: User, receiver: Receiver) -> None:
    old = signing.secret_of(user_id=alice.pk)
    delivery = ended(alice, receiver.url())
    new = signing.rotate(actor=Actor(alice.pk, "alice"))
    deliver(delivery)
    assert receiver.received[0].is_signed_with(new)
    assert not receiver.received[0].is_signed_with(old)
    entry = Entry.objects.get(verb="callback_secret_rotated")
    assert new not in str(entry.details)


# ── API ──────────────────────────────────────────────────────────────────────────────────────────


def test_ones_own_are_listed_and_somebody_elses_are_404(
    client: Client, anonymous: User, alice: User
) -> None:
    own, other = ended(anonymous), ended(alice)
    deliver(own, Sender(resolve=lambda _host, _port: []))
    assert own.execution
    assert other.execution
    answer = client.get(f"/api/v1/executions/{own.execution.exec_id}/callbacks/")
    [told] = answer.json()["callbacks"]
    assert (told["id"], told["state"]) == (str(own.pk), "pending")
    assert told["due_at"]
    [attempt] = told["tries"]
    assert (attempt["status"], attempt["error"]) == (None, "hook.example has no address")
    path = f"/api/v1/executions/{other.execution.exec_id}/callbacks/"
    error_of(client.get(path), 404, "not_found")
    error_of(client.get("/api/v1/executions/boxer-0/callbacks/"), 404, "not_found")
    may_see = Permission.objects.get(codename="view_all", content_type__app_label="executions")
    anonymous.user_permissions.add(may_see)
    assert client.get(path).json()["callbacks"][0]["id"] == str(other.pk)
    assert Entry.objects.filter(verb="run_viewed", owner_id=alice.pk).count() == 1


def test_the_secret_is_shown_and_made_anew(client: Client, anonymous: User) -> None:
    shown = client.get("/api/v1/callback-secret/")
    assert shown["Cache-Control"] == "no-store"
    assert shown.json() == {"secret": signing.secret_of(user_id=anonymous.pk)}
    made = client.post("/api/v1/callback-secret/").json()
    assert made != shown.json()
    assert client.get("/api/v1/callback-secret/").json() == made


# ── Admin ────────────────────────────────────────────────────────────────────────────────────────


def test_staff_see_deliveries_and_have_them_sent_again(client: Client, alice: User) -> None:
    delivery = deliver(ended(alice, "gopher://x/"))
    Delivery.objects.update(give_up_at=timezone.now() - timedelta(days=3))
    staff = User.objects.create_user("staff", is_staff=True)
    client.force_login(staff)
    page, one = "/admin/callbacks/delivery/", f"/admin/callbacks/delivery/{delivery.pk}/change/"
    assert client.get(page).status_code == 403
    staff.user_permissions.add(Permission.objects.get(codename="view_delivery"))
    assert delivery.url in client.get(page).content.decode()
    assert "must be an https" in client.get(one).content.decode()
    action = {"action": "deliver_again", "_selected_action": [str(delivery.pk)]}
    client.post(page, action)
    delivery.refresh_from_db()
    assert delivery.state == State.FAILED, "to look isn't to send"
    staff.user_permissions.add(Permission.objects.get(codename="deliver_again"))
    assert client.post(page, action).status_code == 302
    delivery.refresh_from_db()
    assert delivery.state == State.PENDING
    assert delivery.give_up_at > timezone.now() + timedelta(hours=23)
    assert services.enqueue_due() == 1
    assert client.post(one, {"url": URL}).status_code == 403


def test_what_is_being_sent_is_not_sent_again_meanwhile(alice: User) -> None:
    delivery = ended(alice)
    assert services.claim(delivery_id=str(delivery.pk))
    assert services.deliver_again(deliveries=[delivery]) == 0
