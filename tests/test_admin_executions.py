"""Executions and hosts in the admin: found by indexes, shown as text, acted on through services."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission, User
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from executions import hosts, services
from executions.administration import figures, periods
from executions.audit.models import Entry
from executions.broker import ListenBroker
from executions.cluster.primitives import PipeEvent, Rendezvous
from executions.cluster.pusher import Pusher
from executions.models import Execution, Status, WorkerHost
from executions.quotas.models import Quota
from executions.services import Ending
from tests.test_services import ENDED, HOST, claim, host, submit

__all__ = ["host", "submit"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:No directory at"),
]

LIST = "/admin/executions/execution/"
HOSTS = "/admin/executions/workerhost/"


@pytest.fixture
def client(transactional_db: None) -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))
    return client


def text(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, (address, answer.status_code)
    return answer.content.decode()


def finished(exec_id: str, ending: Ending = ENDED) -> Execution:
    execution = claim(exec_id)
    assert services.start(execution=execution, image_digest="", pull_ms=1, start_ms=1)
    assert services.finish(execution=execution, ending=ending)
    return execution


def act(client: Client, name: str, *chosen: Execution, confirmed: bool = True) -> str:
    form: dict[str, Any] = {"action": name, "_selected_action": [one.pk for one in chosen]}
    if confirmed:
        form["confirmed"] = "yes"
    answer = client.post(LIST, form, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()


# ── Finding ──────────────────────────────────────────────────────────────────────────────────────


def test_runs_are_found_by_state_id_owner_and_day(
    client: Client, submit: Callable[..., str]
) -> None:
    ended, waits = submit(), submit()
    finished(ended)
    today = timezone.now().astimezone(UTC).strftime("%Y-%m-%d")
    for query, found in [
        ("", {ended, waits}),
        ("?state=exited", {ended}),
        ("?state=queued", {waits}),
        ("?state=cancelled", set()),
        ("?state=infra_error", set()),
        (f"?q={ended[:14]}", {ended}),
        ("?q=anonymous", {ended, waits}),
        ("?q=nobody", set()),
        (f"?submitted={today}", {ended, waits}),
        (f"?submitted={today[:7]}&state=exited", {ended}),
        (f"?submitted={today[:4]}", {ended, waits}),
        ("?submitted=1999-01", set()),
    ]:
        page = text(client, LIST + query)
        rows = page[page.index("changelist-form") :]
        assert {one for one in (ended, waits) if f">{one}</a>" in rows} == found, query


@pytest.mark.parametrize("asked", ["x", "2026-13", "2026-02-30", "9999", "0000", "2026-1"])
def test_a_period_that_is_none_is_refused(client: Client, asked: str) -> None:
    answer = client.get(f"{LIST}?submitted={asked}")
    assert (answer.status_code, answer["Location"]) == (302, f"{LIST}?e=1")


def test_the_hierarchy_offers_what_is_not_empty(submit: Callable[..., str]) -> None:
    now = datetime(2026, 3, 5, tzinfo=UTC)
    moments = [(2024, 12, 31, 23), (2026, 1, 1, 0), (2026, 1, 31, 5), (2026, 3, 1, 1)]
    for moment in moments:
        created = datetime(*moment, tzinfo=UTC)
        Execution.objects.filter(exec_id=submit()).update(created_at=created)

    def offered(text: str | None) -> list[str]:
        return [period.text for period in periods.offered(text, now)]

    assert offered(None) == ["2024", "2026"]
    assert offered("2026") == ["2026", "2026-01", "2026-03"]
    assert offered("2026-01") == ["2026", "2026-01", "2026-01-01", "2026-01-31"]
    assert offered("2024-12-31") == ["2024", "2024-12", "2024-12-31"]
    assert offered("nonsense") == []
    january = periods.parse("2026-01")
    assert periods.within(Execution.objects.all(), january.begins, january.ends).count() == 2


def test_nothing_sorts_counts_or_reads_the_whole_table(
    client: Client, submit: Callable[..., str]
) -> None:
    submit()
    with CaptureQueriesContext(connection) as queries:
        text(client, f"{LIST}?o=9&_facets=1&state=queued")
    told = [query["sql"] for query in queries if '"executions_execution"' in query["sql"]]
    [rows] = [sql for sql in told if '"exec_id"' in sql]
    assert 'ORDER BY "executions_execution"."id" DESC' in rows
    assert '"left_out"' not in rows
    [counted] = [sql for sql in told if "COUNT(" in sql]
    assert "LIMIT 2000" in counted


def test_a_page_takes_as_many_queries_for_many_rows_as_for_one(
    client: Client, submit: Callable[..., str]
) -> None:
    submit()
    text(client, LIST)
    with CaptureQueriesContext(connection) as one:
        text(client, LIST)
    for _ in range(12):
        submit()
    with CaptureQueriesContext(connection) as many:
        text(client, LIST)
    assert len(many) == len(one) <= 11


# ── Looking ──────────────────────────────────────────────────────────────────────────────────────


def test_what_a_run_printed_is_text_in_folds_and_bounded(
    client: Client, submit: Callable[..., str]
) -> None:
    hostile = b"<script>alert(1)</script>\x1b[31m\xff\xe2\x80\xae" + b"x" * 200_000
    ending = Ending(outcome=ENDED.outcome, exit_code=0, stdout=hostile, stderr=b"<b>", wall_ms=1)
    exec_id = submit(cmd=("sh", "-c", "echo '<i>'"), env=("A=<u>",), labels={"l": "<s>"})
    execution = finished(exec_id, ending)
    page = text(client, f"{LIST}{execution.pk}/change/")
    for tag in ("<script>alert", "<b>", "<i>", "<u>", "<s>", "\x1b", "\u202e"):
        assert tag not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\u241b[31m\ufffd\\u{202e}xxx" in page
    assert f"stdout: {len(hostile):,} bytes (the first 65,536 here)" in page
    assert f'href="/api/v1/executions/{exec_id}/stdout/"' in page
    assert len(page) < 200_000
    assert client.get(f"{LIST}{exec_id}/change/").status_code == 200


def test_looking_at_others_runs_is_written_down(client: Client, submit: Callable[..., str]) -> None:
    execution = Execution.objects.get(exec_id=submit())
    text(client, LIST)
    text(client, f"{LIST}{execution.pk}/change/")
    looked = Entry.objects.filter(username="root", verb="run_viewed").get()
    assert (looked.object_id, looked.owner_id) == (execution.exec_id, execution.owner_id)
    assert Entry.objects.filter(username="root", verb="runs_listed").count() == 1


def test_nothing_is_changed_by_hand(client: Client, submit: Callable[..., str]) -> None:
    execution = Execution.objects.get(exec_id=submit())
    for address in (f"{LIST}{execution.pk}/change/", f"{LIST}{execution.pk}/delete/"):
        assert client.post(address, {"status": "finished", "post": "yes"}).status_code == 403
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(f"{HOSTS}{HOST}/delete/", {"post": "yes"}).status_code == 403
    assert Execution.objects.get().status == Status.QUEUED


# ── Doing ────────────────────────────────────────────────────────────────────────────────────────


def test_an_action_asks_first_and_then_says_what_it_did(
    client: Client, submit: Callable[..., str]
) -> None:
    waits, ended = submit(), submit()
    finished(ended)
    chosen = [Execution.objects.get(exec_id=exec_id) for exec_id in (waits, ended)]
    question = act(client, "cancel", *chosen, confirmed=False)
    assert waits in question
    assert "taken back" in question
    assert Execution.objects.get(exec_id=waits).status == Status.QUEUED
    said = act(client, "cancel", *chosen)
    assert "1 cancelled" in said
    assert "1 left alone: the run has ended already" in said
    assert Execution.objects.get(exec_id=waits).status == Status.CANCELLED
    assert Entry.objects.get(verb="run_cancelled").username == "root"


def test_runs_are_repeated_and_removed_by_the_services(
    client: Client, submit: Callable[..., str]
) -> None:
    execution = finished(submit())
    act(client, "rerun", execution)
    again = Execution.objects.get(rerun_of=execution)
    assert again.owner.username == "root"
    said = act(client, "remove", execution, again)
    assert "1 deleted" in said
    assert "1 left alone" in said
    assert set(Execution.objects.values_list("pk", flat=True)) == {again.pk}
    verbs = set(Entry.objects.filter(username="root").values_list("verb", flat=True))
    assert verbs >= {"run_repeated", "run_deleted"}


def test_an_action_does_a_hundred_at_most(
    client: Client, submit: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executions.administration.confirmed.MOST", 2)
    chosen = [Execution.objects.get(exec_id=submit()) for _ in range(3)]
    assert "only the newest 2" in act(client, "cancel", *chosen, confirmed=False)
    assert "2 cancelled" in act(client, "cancel", *chosen)
    chosen[0].refresh_from_db()
    assert chosen[0].status == Status.QUEUED


def test_who_may_only_look_is_offered_no_action_and_can_do_none(
    transactional_db: None, submit: Callable[..., str]
) -> None:
    auditor = User.objects.create_user("ann", is_staff=True)
    # The ready groups are of a migration, and a test that flushes takes them away.
    group = Group.objects.create(name="lookers")
    auditor.groups.add(group)
    group.permissions.set(Permission.objects.filter(codename__in=["view_all", "view_execution"]))
    client = Client()
    client.force_login(auditor)
    execution = Execution.objects.get(exec_id=submit())
    assert 'name="action"' not in text(client, LIST)
    act(client, "cancel", execution)
    execution.refresh_from_db()
    assert execution.status == Status.QUEUED


# ── Hosts ────────────────────────────────────────────────────────────────────────────────────────


def test_hosts_say_whether_they_live_and_what_they_run(
    client: Client, submit: Callable[..., str]
) -> None:
    claim(submit())
    page = text(client, HOSTS)
    assert '<td class="field-state">alive</td>' in page
    assert '<td class="field-runs_now">1</td>' in page
    WorkerHost.objects.update(seen_at=timezone.now() - timedelta(minutes=1))
    assert "silent" in text(client, f"{HOSTS}{HOST}/change/")
    hosts.stopped(host_id=HOST)
    assert '<td class="field-state">stopped</td>' in text(client, HOSTS)


def test_a_drained_host_takes_nothing_until_it_is_to_take_runs_again(
    client: Client, submit: Callable[..., str], tmp_path: Path
) -> None:
    form = {"_selected_action": [HOST], "confirmed": "yes"}
    said = client.post(HOSTS, {**form, "action": "drain"}, follow=True).content.decode()
    assert "1 drained" in said
    assert '<td class="field-state">draining</td>' in said
    assert (
        "1 left alone"
        in client.post(HOSTS, {**form, "action": "drain"}, follow=True).content.decode()
    )
    submit()
    with worker_and_pusher(tmp_path) as got:
        assert not got.wait(2)
        client.post(HOSTS, {**form, "action": "resume"})
        assert got.wait(30)
    verbs = Entry.objects.filter(object_id=HOST).order_by("pk").values_list("verb", flat=True)
    assert list(verbs) == ["host_drained", "host_resumed"]


@contextmanager
def worker_and_pusher(directory: Path) -> Iterator[threading.Event]:
    """Both in threads of this process; set when the worker has been given a message."""
    stop, got = PipeEvent(), threading.Event()
    tasks = Rendezvous(directory / "s", stop, backlog=4)

    def work() -> None:
        if tasks.message(PipeEvent()):
            got.set()

    def push() -> None:
        try:
            Pusher(tasks, stop, ListenBroker(), HOST).run()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=target) for target in (work, push)]
    for thread in threads:
        thread.start()
    try:
        yield got
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        tasks.close()


def test_who_is_held_waits_and_what_runs_goes_on(
    client: Client, submit: Callable[..., str]
) -> None:
    running = claim(submit())
    waits = Execution.objects.get(exec_id=submit())
    said = act(client, "hold", waits, running)
    assert "1 owners held" in said
    assert "1 left alone: the user is held already" in said
    assert ListenBroker().take() is None
    running.refresh_from_db()
    assert running.status == Status.PULLING
    assert Entry.objects.filter(username="root", verb="quota_created").count() == 1
    Quota.objects.all().delete()
    assert ListenBroker().take() is not None


# ── The overview ─────────────────────────────────────────────────────────────────────────────────


def test_the_overview_says_what_waits_ended_and_lives(
    client: Client, submit: Callable[..., str]
) -> None:
    old = finished(submit())
    Execution.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(hours=2))
    finished(submit())
    services.withdraw(exec_id=submit())
    submit()
    [exited] = [one for one in figures.ended(timezone.now()) if one.name == "exited"]
    [cancelled] = [one for one in figures.ended(timezone.now()) if one.name == "cancelled"]
    assert (str(cancelled.hour), str(cancelled.day)) == ("1", "1")
    assert (exited.hour.value, exited.day.value) == (1, 2)
    page = text(client, "/admin/overview/")
    assert "runs that wait" in page
    assert "of 2 that started (0%) had a sandbox from the pool" in page
    assert "here</a>" in page
    assert "none has ever started" not in page
    WorkerHost.objects.update(seen_at=timezone.now() - timedelta(minutes=1))
    assert "no worker host is alive" in text(client, "/admin/overview/")


def test_figures_stop_counting(submit: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "COUNTED", 2)
    for _ in range(3):
        submit()
    assert str(figures.waiting().number) == "2 or more"
    assert figures.latest().times[0].p50 is None
