"""The pages of runs, looked at from inside: what they show, and that hostile text stays text."""

import re
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from executions.history import ansi, export, run
from executions.history.visible import command, visible
from executions.models import Execution, ExecutionOutput

pytestmark = pytest.mark.django_db
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
OVERRIDE = "\u202e"


def made(owner: User, **more: Any) -> Execution:
    ended: dict[str, Any] = {"status": "finished", "outcome": "exited", "exit_code": 0}
    limits = {"cpu_cores": 1, "memory_mb": 64, "pids_limit": 8, "wall_clock_secs": 9, "nofile": 99}
    given = {"image": "busybox", "cmd": ["true"], **ended, **limits, **more}
    return Execution.objects.create(owner=owner, **given)


def page(client: Client, path: str, status: int = 200) -> str:
    response = client.get(path, headers={"Accept": "text/html"})
    assert response.status_code == status, response.content[:500]
    return response.content.decode()


class Elements(HTMLParser):
    """Names and attributes of a page's elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def runs_nothing(html: str) -> None:
    for tag, attributes in Elements(html).found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        assert tag not in {"img", "iframe", "object", "embed"}
        if tag == "script":
            assert (attributes.get("src") or "").startswith("/static/boxer/")
        for name in ("href", "action", "src"):
            assert re.match(r"(/|\?|#|$)", attributes.get(name) or ""), attributes
    assert OVERRIDE not in html


# ── Text of strangers ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (b"plain\n", "plain\n"),
        (b"\x1b[31mred\x1b[0m!", '<span class="a-c1">red</span>!'),
        (
            b"\x1b[1;92mx\x1b[22my",
            '<span class="a-bold a-c10">x</span><span class="a-c10">y</span>',
        ),
        (b"\x1b[38;5;3mx\x1b[39my", '<span class="a-c3">x</span>y'),
        (b"\x1b[38;2;1;2;3mx", "x"),
        (b"\x1b[48;5;200;4mx", '<span class="a-underlined">x</span>'),
        (b"\x1b[2J\x1b[Hx\x1b[10Ay", "xy"),
        (b"\x1b]8;;javascript:alert(1)\x07link\x1b]8;;\x07", "link"),
        (b"\x1b]0;title\x1b\\x", "x"),
        (b"safe\rEVIL", "safe\nEVIL"),
        (b"a\r\nb", "a\nb"),
        (b"\x1b[31", "\\x1b[31"),
        (b"\x1b[" + b"9" * 5000 + b"mx", "x"),
        (b"\xff", "\ufffd"),
        (b"a\x08b\x00", "a\\x08b\\x00"),
        ("\u202egpj.exe".encode(), "\\u202egpj.exe"),
        (b"\x1b[31m<b>&\"'", '<span class="a-c1">&lt;b&gt;&amp;&quot;&#x27;</span>'),
    ],
)
def test_what_was_printed_is_text_in_its_colours(printed: bytes, shown: str) -> None:
    assert ansi.html(printed) == shown


def test_what_has_no_shape_is_written_out() -> None:
    assert visible(f"a{OVERRIDE}b\u200b\x07") == "a\\u202eb\\u200b\\x07"
    assert visible("ärger 日本 🙂\n\t") == "ärger 日本 🙂\n\t"


def test_a_command_can_be_pasted() -> None:
    assert command(["sh", "-c", "echo 'a b'"]) == """sh -c 'echo '"'"'a b'"'"''"""
    assert command(["echo", f"a'{OVERRIDE}\n\\"]) == r"""echo $'a\'\u202e\n\\'"""


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\t=1", "\r=1", "\uff1d1"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert export.neutral(text) == f"'{text}"
    assert export.neutral(f"a{text}") == f"a{text}"


def test_a_hostile_run_shows_as_text(client: Client, alice: User) -> None:
    hostile = made(
        alice,
        image=SCRIPT,
        cmd=["sh", SCRIPT, OVERRIDE],
        env=[f"{SCRIPT}={OVERRIDE}"],
        cwd=f"/{SCRIPT}{OVERRIDE}",
        labels={SCRIPT: SCRIPT, "b": OVERRIDE},
        left_out=[{"path": SCRIPT + OVERRIDE, "reason": SCRIPT}],
        error=SCRIPT + OVERRIDE,
        image_digest=f"sha256:{SCRIPT}",
    )
    printed = f"{SCRIPT}\x1b[31m{SCRIPT}{OVERRIDE}".encode()
    ExecutionOutput.objects.create(execution=hostile, stdout=printed, stderr=printed)
    hostile.inputs.create(path=SCRIPT + OVERRIDE, sha256="0" * 64, size=1)
    client.force_login(alice)
    for path in ("/runs/", f"/runs/{hostile.exec_id}/"):
        shown = page(client, path)
        runs_nothing(shown)
        assert "&lt;script&gt;" in shown
    for name in ("image", "command", "label", "owner", "since", "cursor", "status"):
        response = client.get("/runs/", {name: f'"><{SCRIPT}'}, headers={"Accept": "text/html"})
        runs_nothing(response.content.decode())


def test_five_megabytes_in_one_line_are_cut_in_the_middle(client: Client, alice: User) -> None:
    long = made(alice)
    line = b"<b>" + b"x" * 5_000_000 + b"</b>"
    ExecutionOutput.objects.create(execution=long, stdout=line)
    client.force_login(alice)
    shown = page(client, f"/runs/{long.exec_id}/")
    assert len(shown) < 2 * run.SHOWN_BYTES
    assert "&lt;b&gt;xxx" in shown
    assert "xxx&lt;/b&gt;" in shown
    assert "are not shown here" in shown
    [first, _] = run.printed(long)
    assert first.left_out == len(line) - run.SHOWN_BYTES
    assert first.folded


def test_the_whole_of_an_output_is_shown_up_to_the_bound(alice: User) -> None:
    for size in (0, 1, run.SHOWN_BYTES // 2 + 1, run.SHOWN_BYTES, run.SHOWN_BYTES + 1):
        data = bytes(97 + at % 26 for at in range(size))
        execution = made(alice)
        ExecutionOutput.objects.create(execution=execution, stdout=data)
        [shown, _] = run.printed(execution)
        assert shown.left_out == max(0, size - run.SHOWN_BYTES)
        if not shown.left_out:
            assert str(shown.head) == data.decode()


# ── The list ─────────────────────────────────────────────────────────────────────────────────────


def test_filters_are_in_the_url(client: Client, alice: User) -> None:
    rows = {
        "failed": made(alice, exit_code=3, image="alpine"),
        "timed": made(alice, outcome="timed_out", labels={"job": "a b"}),
        "old": made(alice, cmd=["sleep", "9"]),
    }
    old = timezone.now() - timedelta(days=40)
    Execution.objects.filter(pk=rows["old"].pk).update(created_at=old)
    client.force_login(alice)
    day = old.date().isoformat()
    for query, expected in (
        ("", {"failed", "timed", "old"}),
        ("?status=&outcome=&image=&label=", {"failed", "timed", "old"}),
        ("?image=alpine", {"failed"}),
        ("?outcome=timed_out", {"timed"}),
        ("?label=job%3Da+b", {"timed"}),
        ("?command=sleep", {"old"}),
        (f"?until={day}", {"old"}),
        (f"?since={day}&until={day}", {"old"}),
        (f"?since={(old.date() + timedelta(days=1)).isoformat()}", {"failed", "timed"}),
        ("?status=queued", set()),
    ):
        shown = page(client, f"/runs/{query}")
        assert {name for name, row in rows.items() if row.exec_id in shown} == expected, query
    assert "since: Must be a day" in page(client, "/runs/?since=x", 400)
    assert "outcome: Must be one of" in page(client, "/runs/?outcome=x", 400)


def test_older_runs_are_a_link_away_and_filters_stay(client: Client, alice: User) -> None:
    runs = [made(alice, image="alpine") for _ in range(3)]
    client.force_login(alice)
    first = page(client, "/runs/?limit=2&image=alpine")
    assert runs[0].exec_id not in first
    [older] = re.findall(r'rel="next" href="([^"]+)"', first)
    assert "image=alpine" in older
    second = page(client, older.replace("&amp;", "&"))
    assert [one.exec_id in second for one in runs] == [True, False, False]


def test_no_query_is_made_for_each_row(client: Client, alice: User) -> None:
    client.force_login(alice)
    counts = []
    for _ in range(2):
        for _ in range(5):
            made(alice, labels={"a": "b"})
        with CaptureQueriesContext(
            connection,
        ) as queries:
            page(client, "/runs/")
        counts.append(len(queries))
    # Session, user, permissions of user and of groups, the runs.
    assert counts == [5, 5]


def test_one_run_takes_as_many_queries_with_many_files(client: Client, alice: User) -> None:
    client.force_login(alice)
    counts = []
    for files in (1, 20):
        one = made(alice)
        ExecutionOutput.objects.create(execution=one, stdout=b"x")
        for at in range(files):
            one.inputs.create(path=f"in/{at}", sha256="0" * 64, size=1)
        with CaptureQueriesContext(connection) as queries:
            page(client, f"/runs/{one.exec_id}/")
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 9


# ── One run ──────────────────────────────────────────────────────────────────────────────────────


def test_use_and_time_line_add_up(alice: User) -> None:
    one = made(
        alice,
        queue_ms=10,
        pull_ms=0,
        start_ms=30,
        wall_ms=60,
        cpu_ms=30,
        max_memory_bytes=32 << 20,
    )
    assert [(use.name, use.percent) for use in run.uses(one)] == [
        ("Memory", 50),
        ("CPU", 50),
        ("Time", 1),
    ]
    spans = run.time_line(one)
    assert [(span.name, span.start, span.width) for span in spans] == [
        ("queue", 0, 10),
        ("pull", 10, 0.3),
        ("start", 10, 30),
        ("run", 40, 60),
    ]
    assert run.uses(made(alice)) == []
    assert run.time_line(made(alice)) == []


def test_pages_want_a_login(client: Client, db: None) -> None:
    for path in ("/runs/", "/runs/boxer-0/", "/runs/export.csv"):
        response = client.get(path)
        assert (response.status_code, response["Location"]) == (302, f"/login?next={path}")


def test_who_may_look_at_all_is_told_whose_and_changes_nothing(
    client: Client, alice: User, bob: User
) -> None:
    one = made(alice)
    bob.user_permissions.add(
        Permission.objects.get(codename="view_all", content_type__app_label="executions")
    )
    client.force_login(bob)
    assert "alice" in page(client, "/runs/?owner=alice")
    shown = page(client, f"/runs/{one.exec_id}/")
    assert "Delete…" not in shown
    changed = client.post("/runs/change", {"run": one.exec_id, "change": "delete", "sure": "yes"})
    assert changed.status_code == 403
    assert Execution.objects.filter(pk=one.pk).exists()
    with connection.cursor() as cursor:
        cursor.execute("SELECT verb FROM audit_entry WHERE object_id = %s", [one.exec_id])
        assert set(cursor.fetchall()) == {("run_viewed",)}


def test_changes_are_asked_for_first(client: Client, alice: User) -> None:
    gone, waits = made(alice), made(alice, status="queued", outcome="", exit_code=None)
    client.force_login(alice)
    both = {"run": [gone.exec_id, waits.exec_id], "change": "delete"}
    asked = client.post("/runs/change", both)
    assert "Delete: 2 runs?" in asked.content.decode()
    assert Execution.objects.count() == 2
    done = client.post("/runs/change", {**both, "sure": "yes"}, follow=True)
    shown = done.content.decode()
    assert f"Deleted: {gone.exec_id}" in shown
    assert f"{waits.exec_id}: the run hasn&#x27;t ended" in shown
    assert list(Execution.objects.values_list("pk", flat=True)) == [waits.pk]
    nothing = client.post("/runs/change", {"change": "delete"}, follow=True)
    assert "Choose from 1 to" in nothing.content.decode()
