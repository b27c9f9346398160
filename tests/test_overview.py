"""The overview and the form for a new run, looked at from inside."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from executions.history import overview
from executions.models import Execution
from executions.quotas import known
from executions.quotas.models import Quota
from tests.test_history import OVERRIDE, SCRIPT, made, page, runs_nothing

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _quotas_unknown() -> Iterator[None]:
    """A database is emptied after its test; what was known of it must be gone too."""
    known.forget()
    yield
    known.forget()


def test_who_isnt_logged_in_is_told_what_this_is(client: Client) -> None:
    shown = page(client, "/")
    assert "sandbox" in shown
    assert 'href="/login"' in shown
    assert 'href="/swagger"' in shown


def test_days_times_and_cpu_are_ones_own(alice: User, bob: User) -> None:
    for queue_ms, wall_ms in ((1, 10), (2, 20), (30, 300)):
        made(alice, queue_ms=queue_ms, wall_ms=wall_ms, cpu_ms=5)
    made(alice, exit_code=1)
    made(alice, outcome="out_of_memory")
    made(bob, wall_ms=9999, cpu_ms=9999)
    old = made(alice, wall_ms=9999, cpu_ms=9999)
    before = timezone.now() - timedelta(days=overview.DAYS)
    Execution.objects.filter(pk=old.pk).update(created_at=before)
    days = overview.days(alice.pk)
    assert len(days) == overview.DAYS
    assert [day.runs for day in days[:-1]] == [0] * (overview.DAYS - 1)
    today = {part.kind: (part.runs, part.y, part.height) for part in days[-1].parts}
    assert today == {"succeeded": (3, 40, 60), "failed": (1, 20, 20), "limit": (1, 0, 20)}
    times = overview.times(alice.pk)
    assert (times.runs, times.cpu_ms) == (5, 15)
    assert (times.wait, times.wall) == ([2, 30], [20, 300])


def test_the_overview_asks_as_much_of_many_runs_as_of_none(client: Client, alice: User) -> None:
    client.force_login(alice)
    counts = []
    for runs in (0, 12):
        for _ in range(runs):
            made(alice)
            made(alice, status="queued", outcome="", exit_code=None)
        known.forget()
        with CaptureQueriesContext(connection) as queries:
            runs_nothing(page(client, "/"))
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 9


def test_quotas_are_bars(client: Client, alice: User) -> None:
    client.force_login(alice)
    assert "<meter" not in page(client, "/")
    assert overview.HOUR not in page(client, "/")
    Quota.objects.create(user=alice, runs_an_hour=7, stored_bytes=2048)
    shown = page(client, "/")
    assert overview.HOUR in shown
    assert shown.count("<meter") == 2


def test_hostile_text_is_text_there_too(client: Client, alice: User) -> None:
    made(alice, cmd=[SCRIPT, OVERRIDE])
    client.force_login(alice)
    shown = page(client, "/")
    runs_nothing(shown)
    assert "&lt;script&gt;" in shown


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"image": "busybox", "command": "echo 'a"}, "command: Can&#x27;t be split"),
        ({"image": "busybox", "command": " "}, "command: Must be given"),
        ({"image": "", "command": "true"}, "image"),
        ({"image": "busybox", "command": "true", "memory_mb": "x"}, "memory_mb: Must be a number"),
        ({"image": "busybox", "command": "true", "memory_mb": "99999999"}, "limits memory_mb"),
        ({"image": "busybox", "command": "true", "labels": "a"}, "labels: Each line"),
        ({"image": "busybox", "command": "true", "files": "../up"}, "files.0"),
    ],
)
def test_a_wrong_form_says_what_is_wrong_and_keeps_what_was_typed(
    client: Client, alice: User, given: dict[str, str], why: str
) -> None:
    client.force_login(alice)
    response = client.post("/runs/new", {**given, "script": f"</textarea>{SCRIPT}"})
    assert response.status_code == 400
    shown = response.content.decode()
    assert why in shown
    runs_nothing(shown)
    assert "&lt;/textarea&gt;&lt;script&gt;" in shown
    assert not Execution.objects.exists()
