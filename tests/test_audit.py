"""The audit log: what is in it can't be changed unnoticed, and what happens is in it."""

import hashlib
import io
import json
import re
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission, User
from django.core.management import CommandError, call_command
from django.db import ProgrammingError, connection, connections, transaction
from django.test import Client

from executions import audit, hosts, services
from executions.actor import Actor
from executions.audit import keeping, witness
from executions.audit.chain import chain, settle_failures
from executions.audit.models import Entry, Failure, Head
from executions.audit.recording import FAILURES_A_MINUTE
from executions.audit.verification import Verification
from executions.models import Execution
from executions.quotas.models import Quota
from filestore import services as filestore
from tests.test_services import request as run_request

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:No directory at"),
]

ANN = Actor(7, "ann", "laptop", "192.0.2.1")


@pytest.fixture
def home(tmp_path: Path, settings: Any) -> Path:
    settings.BOXER_HOME = tmp_path
    return tmp_path


def write(number: int, actor: Actor = ANN) -> None:
    audit.record(actor, audit.Verb.RUN_VIEWED, "executions.execution", number, owner_id=9)


def written(*numbers: int) -> None:
    for number in numbers:
        write(number)
    chain()


def taken_back(work: Callable[[], None]) -> None:
    with transaction.atomic():
        work()
        transaction.set_rollback(True)


def findings() -> list[str]:
    return list(Verification().findings())


def sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def as_a_thief() -> Iterator[None]:
    """Whoever owns the database can switch triggers off."""
    sql("ALTER TABLE audit_entry DISABLE TRIGGER USER")
    sql("ALTER TABLE audit_head DISABLE TRIGGER USER")
    yield
    for table in ("audit_entry", "audit_head"):
        sql(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        sql(f"ALTER TABLE {table} DISABLE TRIGGER {table}_truncate")


def test_an_entry_says_who_did_what_to_which_object_when() -> None:
    details = {"nul": "a\0b", "half": "\ud800", "long": "x" * 5000, "n": 1.5, "list": [1, [2]]}
    audit.record(
        ANN, audit.Verb.RUN_VIEWED, "executions.execution", "boxer-1", owner_id=9, details=details
    )
    entry = Entry.objects.get()
    assert (entry.user_id, entry.username, entry.token, entry.address) == tuple(
        getattr(ANN, name) for name in ("user_id", "username", "token", "address")
    )
    assert (entry.verb, entry.object_type, entry.object_id, entry.owner_id) == (
        "run_viewed",
        "executions.execution",
        "boxer-1",
        9,
    )
    assert entry.details["nul"] == "a\ufffdb"
    assert len(entry.details["long"]) < 1000
    assert entry.details["list"] == [1, [2]]
    assert entry.at is not None


def test_looking_again_and_again_is_one_look_a_minute() -> None:
    for part in ("stdout", "stdout", "stderr", "stdout"):
        audit.record_look(
            ANN, audit.Verb.RUN_VIEWED, "executions.execution", "b-1", details={"part": part}
        )
    audit.record_look(Actor(8, "bob"), audit.Verb.RUN_VIEWED, "executions.execution", "b-1")
    found = [(entry.username, entry.details.get("part")) for entry in entries("run_viewed")]
    assert found == [("ann", "stdout"), ("ann", "stderr"), ("bob", None)]


def test_an_entry_goes_with_its_transaction() -> None:
    taken_back(lambda: write(1))
    assert not Entry.objects.exists()


def test_entries_are_chained_once_and_in_their_order() -> None:
    written(1, 2, 3)
    written(4)
    assert chain() == 0
    assert list(Entry.objects.order_by("id").values_list("seq", flat=True)) == [1, 2, 3, 4]
    assert Head.objects.get().seq == 4
    assert findings() == []


def test_many_writers_and_many_chainers_make_one_chain() -> None:
    def work(writer: int) -> None:
        for number in range(40):
            with transaction.atomic():
                write(writer * 1000 + number)
            if number % 7 == 0:
                chain()
        connections.close_all()

    written(0)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    chain()
    assert Entry.objects.filter(seq__isnull=False).count() == 241
    assert Head.objects.get().seq == 241
    assert findings() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entry SET username = 'bob' WHERE seq = 1",
        "UPDATE audit_entry SET seq = 9 WHERE seq = 1",
        "UPDATE audit_entry SET username = 'bob', seq = 3, hash = hash WHERE seq IS NULL",
        "DELETE FROM audit_entry",
        "UPDATE audit_head SET seq = 0",
        "DELETE FROM audit_head",
        """INSERT INTO audit_entry (verb, object_type, object_id, seq, hash)
        SELECT 'login', '', '', 4, hash FROM audit_head""",
    ],
)
def test_the_database_refuses_to_change_the_log(statement: str) -> None:
    written(1, 2)
    write(3)
    with pytest.raises(ProgrammingError, match="append-only"):
        sql(statement)
    chain()
    assert findings() == []


@pytest.mark.parametrize("table", ["audit_entry", "audit_head"])
def test_the_database_refuses_to_empty_the_log(table: str) -> None:
    written(1)
    sql(f"ALTER TABLE {table} ENABLE TRIGGER {table}_truncate")
    try:
        with pytest.raises(ProgrammingError, match="append-only"):
            sql(f"TRUNCATE {table}")
    finally:
        sql(f"ALTER TABLE {table} DISABLE TRIGGER {table}_truncate")
    assert findings() == []


@pytest.mark.parametrize(
    ("theft", "told"),
    [
        ("UPDATE audit_entry SET username = 'bob' WHERE seq = 3", "entry 3 .*changed"),
        ("UPDATE audit_entry SET at = at + interval '1 us' WHERE seq = 5", "entry 5 .*changed"),
        ("UPDATE audit_entry SET details = '{\"a\": 1}' WHERE seq = 1", "entry 1 .*changed"),
        ("DELETE FROM audit_entry WHERE seq IN (2, 3)", "entries 2 to 3: missing"),
        ("DELETE FROM audit_entry WHERE seq = 1", "entry 1: missing"),
        ("DELETE FROM audit_entry WHERE seq > 3", "entries 4 to 5: missing at the end"),
        (
            """UPDATE audit_entry SET seq = -seq WHERE seq IN (2, 3);
            UPDATE audit_entry SET seq = 5 + seq WHERE seq < 0""",
            "out of its order",
        ),
        ("DELETE FROM audit_head", "the head is missing"),
        ("UPDATE audit_head SET seq = 4", "entry 5: not added by the chain"),
        ("UPDATE audit_head SET hash = decode(repeat('11', 32), 'hex')", "the head says"),
    ],
)
def test_verifying_finds_what_a_thief_did(
    home: Path,
    as_a_thief: None,
    theft: str,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written(1, 2, 3, 4, 5)
    call_command("audit", "verify")
    assert "5 entries hold; the last is 5:" in capsys.readouterr().out
    sql(theft)
    with pytest.raises(CommandError, match="doesn't hold") as refused:
        call_command("audit", "verify")
    assert refused.value.returncode == 1
    err = capsys.readouterr().err
    assert any(re.search(told, line) for line in err.splitlines()), err


def test_the_last_entries_are_missed_even_when_the_head_was_set_back(
    home: Path, as_a_thief: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The home has noted the head, out of the database's reach; so may anybody else."""
    written(1, 2)
    second = Entry.objects.get(seq=2)
    write(3)
    keeping.chain_and_note(home)
    known = str(Head.objects.get())
    assert (home / witness.NAME).read_text().strip() == known
    assert (home / witness.NAME).stat().st_mode & 0o077 == 0
    sql("DELETE FROM audit_entry WHERE seq = 3")
    Head.objects.update(seq=2, hash=second.hash)
    assert findings() == []
    with pytest.raises(CommandError):
        call_command("audit", "verify")
    assert (
        f"entry 3: missing at the end, {home / witness.NAME} knew them" in capsys.readouterr().err
    )
    (home / witness.NAME).unlink()
    with pytest.raises(CommandError):
        call_command("audit", "verify", f"--head={known}")
    assert "entry 3: missing at the end, --head knew them" in capsys.readouterr().err


def test_verifying_takes_constant_memory() -> None:
    sql(
        "INSERT INTO audit_entry (verb, object_type, object_id, details)"
        " SELECT 'login', 'auth.user', n, jsonb_build_object('pad', repeat('x', 900))"
        " FROM generate_series(1, 12000) AS n"
    )
    chain()
    tracemalloc.start()
    try:
        verification = Verification()
        assert list(verification.findings()) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert verification.entries == 12000
    assert peak < 12_000_000, "a chunk of it, not all: that would be some 25 MB"


def test_an_export_can_be_verified_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """As the README tells how: without Boxer."""
    written(1, 2, 3)
    audit.record(ANN, audit.Verb.LOGGED_IN, "auth.user", 7, details={"ü": [1, 2.5], "a": None})
    call_command("audit", "export")
    before = bytes(32)
    names = [
        *("seq", "id", "at", "user_id", "username", "token", "address", "verb"),
        *("object_type", "object_id", "owner_id", "details"),
    ]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    for line in lines:
        entry = json.loads(line)
        text = json.dumps(
            [entry[name] for name in names],
            ensure_ascii=False,
            sort_keys=True,
            separators=(",", ":"),
        )
        before = hashlib.sha256(before + text.encode()).digest()
        assert before.hex() == entry["hash"]


def test_the_list_is_filtered(capsys: pytest.CaptureFixture[str]) -> None:
    written(1, 2)
    write(3, Actor(8, "bob"))
    call_command("audit", "list", "--user=ann", "--verb=run_viewed", "--object=2")
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 1
    assert "ann (token laptop) 192.0.2.1 run_viewed executions.execution 2" in out[0]
    call_command("audit", "list", "--since=2100-01-01")
    assert capsys.readouterr().out == ""
    call_command("audit", "list", "--limit=1")
    assert "bob" in capsys.readouterr().out


# ── What is written down ─────────────────────────────────────────────────────────────────────────


def entries(verb: str) -> list[Entry]:
    return list(Entry.objects.filter(verb=verb).order_by("id"))


def test_a_run_is_written_down_with_its_row(anonymous: User) -> None:
    hosts.started(host_id="11111111-1111-1111-1111-111111111111", name="h", workers=1,
                  runsc_version="1")  # fmt: skip
    asked = run_request()
    who = Actor(anonymous.pk, anonymous.username, "laptop", "192.0.2.1")
    services.submit(actor=who, request=asked)
    [entry] = entries(audit.Verb.RUN_SUBMITTED)
    assert (entry.object_id, entry.token, entry.owner_id) == (asked.exec_id, "laptop", None)
    assert entry.details == {"image": "busybox", "network": "none"}
    taken_back(lambda: services.submit(actor=who, request=run_request()))
    assert len(entries(audit.Verb.RUN_SUBMITTED)) == Execution.objects.count() == 1


def test_logins_and_logouts_are_written_down() -> None:
    root = get_user_model().objects.create_superuser("root", password="s3cret-word")
    client = Client(REMOTE_ADDR="192.0.2.9")
    client.post("/admin/login/", {"username": "root", "password": "wrong"})
    answer = client.post("/admin/login/", {"username": "root", "password": "s3cret-word"})
    assert answer.status_code == 302
    client.post("/admin/logout/")
    for verb in (audit.Verb.LOGGED_IN, audit.Verb.LOGGED_OUT):
        [entry] = entries(verb)
        assert (entry.user_id, entry.username, entry.address) == (root.pk, "root", "192.0.2.9")
    failure = Failure.objects.get()
    assert (failure.username, failure.address, failure.times) == ("root", "192.0.2.9", 1)
    assert "wrong" not in str(list(Entry.objects.values()))


def test_failed_logins_fill_no_disk() -> None:
    for number in range(3 * FAILURES_A_MINUTE):
        audit.record_failure(audit.Verb.LOGIN_FAILED, username=f"u{number}", address="192.0.2.3")
        audit.record_failure(audit.Verb.LOGIN_FAILED, username="u1", address="192.0.2.3")
    minutes = Failure.objects.values("minute").distinct().count()
    assert Failure.objects.count() <= minutes * (FAILURES_A_MINUTE + 2)
    sql("UPDATE audit_failure SET minute = minute - interval '5 min'")
    made = settle_failures()
    assert made == len(entries(audit.Verb.LOGIN_FAILED))
    assert not Failure.objects.exists()
    times = [entry.details["times"] for entry in entries(audit.Verb.LOGIN_FAILED)]
    assert sum(times) == 6 * FAILURES_A_MINUTE
    assert any(entry.details["others"] for entry in entries(audit.Verb.LOGIN_FAILED))
    assert settle_failures() == 0


def test_a_name_that_no_column_takes_is_counted_all_the_same() -> None:
    audit.record_failure(audit.Verb.LOGIN_FAILED, username="\0" + "x" * 999, address="\ud800")
    assert Failure.objects.get().username.startswith("\ufffdxxx")


def test_what_changes_who_may_do_what_is_written_down_with_who_did_it() -> None:
    root = get_user_model().objects.create_superuser("root", password="x")
    client = Client(REMOTE_ADDR="192.0.2.9")
    client.force_login(root)
    permission = Permission.objects.get(codename="view_entry")
    client.post("/admin/auth/group/add/", {"name": "readers", "permissions": [permission.pk]})
    group = Group.objects.get()
    client.post(f"/admin/auth/group/{group.pk}/change/", {"name": "watchers"})
    client.post(f"/admin/auth/group/{group.pk}/delete/", {"post": "yes"})
    [made] = entries(audit.Verb.GROUP_CREATED)
    changed = entries(audit.Verb.GROUP_CHANGED)
    [gone] = entries(audit.Verb.GROUP_DELETED)
    for entry in (made, *changed, gone):
        assert (entry.username, entry.address) == ("root", "192.0.2.9")
    assert made.details["name"] == "readers"
    told = [entry.details for entry in changed]
    assert any("view_entry" in str(one) or "Can view entry" in str(one) for one in told)
    assert any(one.get("name") == ["readers", "watchers"] for one in told)
    user = get_user_model().objects.create_user("eve", password="hunter2")
    user.set_password("hunter3")
    user.is_staff = True
    user.save()
    entry = entries(audit.Verb.USER_CHANGED)[-1]
    assert entry.details["is_staff"] == [False, True]
    assert entry.details["password"] == "changed"
    assert entry.username.startswith("local:"), "no request did it"


def test_changes_of_quotas_are_written_down_with_who_made_them() -> None:
    root = get_user_model().objects.create_superuser("root", password="x")
    client = Client(REMOTE_ADDR="192.0.2.9")
    client.force_login(root)
    at = "/admin/quotas/quota/"
    asked = {"everybody": "on", "runs_at_a_time": "3"}
    assert client.post(f"{at}add/", asked).status_code == 302
    quota = Quota.objects.get()
    changed = asked | {"runs_at_a_time": "5"}
    assert client.post(f"{at}{quota.pk}/change/", changed).status_code == 302
    assert client.post(f"{at}{quota.pk}/delete/", {"post": "yes"}).status_code == 302
    found = [
        entries(verb)
        for verb in (audit.Verb.QUOTA_CREATED, audit.Verb.QUOTA_CHANGED, audit.Verb.QUOTA_DELETED)
    ]
    assert [len(one) for one in found] == [1, 1, 1]
    for [entry] in found:
        assert (entry.username, entry.address) == ("root", "192.0.2.9")
    assert found[1][0].details["runs_at_a_time"] == [3, 5]


def test_a_download_is_written_down_and_whose_file_it_was(
    client: Client, anonymous: User, disk: object
) -> None:
    filestore.store(owner_id=anonymous.pk, path="a.txt", source=io.BytesIO(b"content"))
    assert client.get("/files?path=a.txt").getvalue() == b"content"
    assert client.head("/files?path=a.txt").status_code == 200
    assert client.get("/files?path=b.txt").status_code == 404
    [entry] = entries(audit.Verb.FILE_DOWNLOADED)
    assert (entry.username, entry.address) == ("anonymous", "127.0.0.1")
    assert (entry.object_id, entry.owner_id, entry.details["bytes"]) == ("a.txt", None, 7)


# ── The admin ────────────────────────────────────────────────────────────────────────────────────


def test_the_log_is_read_in_the_admin_and_not_touched(
    django_assert_max_num_queries: Any,
) -> None:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))
    written(1, 2)
    audit.record(ANN, audit.Verb.LOGGED_IN, "auth.user", 7, details={"a": "<script>"})
    entry = Entry.objects.get(verb="login", username="ann")
    with django_assert_max_num_queries(6):
        page = client.get("/admin/audit/entry/").content.decode()
    assert "run_viewed" in page
    assert "laptop" in page
    only = client.get("/admin/audit/entry/?verb=login").content.decode()
    assert "192.0.2.1" in only
    assert 'field-verb">run_viewed' not in only
    theirs = client.get("/admin/audit/entry/?others=1").content.decode()
    assert 'field-verb">run_viewed' in theirs
    assert 'field-verb">login' not in theirs
    shown = client.get(f"/admin/audit/entry/{entry.pk}/change/").content.decode()
    assert "&lt;script&gt;" in shown
    for address in ("add/", f"{entry.pk}/delete/"):
        assert client.post(f"/admin/audit/entry/{address}", {"post": "yes"}).status_code == 403
    assert client.post(f"/admin/audit/entry/{entry.pk}/change/", {}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [entry.pk], "post": "yes"}
    client.post("/admin/audit/entry/", chosen)
    assert Entry.objects.filter(pk=entry.pk).exists()


def test_without_the_permission_nobody_reads_it() -> None:
    client = Client()
    client.force_login(get_user_model().objects.create_user("eve", is_staff=True))
    assert client.get("/admin/audit/entry/").status_code == 403


def test_the_migration_can_be_taken_back_and_done_again() -> None:
    try:
        call_command("migrate", "audit", "zero", verbosity=0)
        with connection.cursor() as cursor:
            assert "audit_entry" not in connection.introspection.table_names(cursor)
    finally:
        call_command("migrate", "audit", verbosity=0)
        for table in ("audit_entry", "audit_head"):
            sql(f"ALTER TABLE {table} DISABLE TRIGGER {table}_truncate")
    written(1)
    assert findings() == []
