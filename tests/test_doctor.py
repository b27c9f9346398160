"""The doctor proves each promise by trying it, and notices when one is broken."""

import dataclasses
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError
from django.test import Client
from django_q.models import OrmQ

from boxer_site.examination import refuse_broken, refuse_unknown_names
from boxer_site.supervisor import StartFailed
from executions.doctor import flaws, isolation, limits, probes, services, tasks, unpacking
from executions.doctor.findings import Broken, Doubtful, Finding, Skipped, State, found_out
from executions.doctor.models import Examination
from executions.doctor.ward import BOUNDS, Ward
from executions.sandbox.spec import RunResult
from tests.environment import new_home
from tests.fixtures_sandbox import House
from tests.stack import Stack, manage
from tests.stack_access import query, until


def test_this_host_keeps_every_promise() -> None:
    home = new_home()
    done = manage("doctor", "--json", home=home, timeout=120)
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(found) == set(probes.NAMES) - {"host"}
    states = {name: one["state"] for name, one in found.items()}
    assert states.pop("database") == "skipped", "nothing runs in this home"
    # Of a runsc that has flaws which don't let a program out.
    assert states.pop("runsc-flaws") in {"kept", "doubtful"}
    # Skipped where this machine lacks what such a network stands on.
    assert states.pop("network-sandbox") in {"kept", "skipped"}
    assert set(states.values()) == {"kept"}, states
    assert all(one["detail"] for one in found.values())
    assert list((home / "tmp").iterdir()) == list((home / "workers").iterdir()) == []


# ── It notices ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def ward(house: House) -> Ward:
    area = house.home / "area"
    area.mkdir()
    host = dataclasses.replace(house.host, bounds=BOUNDS)
    return Ward(host, area, "release-20990101.0")


def test_a_network_where_there_should_be_none_is_noticed(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ward.run
    monkeypatch.setattr(ward, "run", lambda script: run(script, network="host"))
    with pytest.raises(Broken, match=r"127\.0\.0\.1"):
        isolation.network_none(ward)


def test_a_sandbox_network_that_reaches_the_host_is_noticed(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lack := ward.host.network.lack():
        pytest.skip(lack)
    run = ward.run
    monkeypatch.setattr(ward, "run", lambda script, **_: run(script, network="host"))
    with pytest.raises(Broken, match="the host was reached from"):
        isolation.network_sandbox(ward)


def test_limits_that_are_not_set_are_noticed(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ward.run

    def unlimited(script: str, **_: float) -> RunResult:
        return run(script, memory_mb=1024, pids_limit=500, nofile=500, wall_clock_secs=8)

    monkeypatch.setattr(ward, "run", unlimited)
    for probe in (limits.memory, limits.pids, limits.nofile):
        with pytest.raises(Broken):
            probe(ward)


@pytest.mark.parametrize(
    "probe", [limits.tmp, limits.output_directory, limits.output_files, limits.output]
)
def test_bounds_that_are_too_wide_are_noticed(ward: Ward, probe: Callable[[Ward], str]) -> None:
    wide = dataclasses.replace(
        BOUNDS,
        output_bytes=1 << 20,
        output_dir_bytes=64 << 20,
        output_dir_files=4000,
        tmp_bytes=64 << 20,
    )
    ward.host = dataclasses.replace(ward.host, bounds=wide)
    with pytest.raises(Broken):
        probe(ward)


def test_without_cgroups_their_limits_are_skipped(house_without_cgroups: House) -> None:
    ward = Ward(house_without_cgroups.host, house_without_cgroups.home, "release-20990101.0")
    with pytest.raises(Skipped, match="BOXER_IGNORE_CGROUPS"):
        limits.memory(ward)


def test_an_unpacker_that_leaves_its_root_is_noticed(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gullible(area: Path, layers: Sequence[Sequence[unpacking.Entry]]) -> bool:
        for name, kind, _ in layers[0]:
            if kind == tarfile.REGTYPE and name.startswith("/"):
                Path(name).write_text("out")
        return False

    monkeypatch.setattr(unpacking, "_unpack", gullible)
    with pytest.raises(Broken, match="outside of it"):
        unpacking.unpacker(ward)


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("release-20180801.0", 4),
        ("0.0~20240729.0", 1),
        ("release-20250319.0", 0),
        ("release-20260101.0", 0),
    ],
)
def test_the_age_of_runsc_tells_its_flaws(version: str, known: int) -> None:
    found = flaws.flaws_of(version)
    assert found is not None
    assert len(found) == known
    assert all(flaw.source.endswith(flaw.name) for flaw in found)


def test_a_flaw_that_lets_a_program_out_breaks_a_promise_and_another_is_a_doubt(
    ward: Ward,
) -> None:
    for version, raised in (
        ("20180801", Broken),
        ("20240729", Doubtful),
        ("built-by-me", Doubtful),
    ):
        ward.runsc_version = version
        with pytest.raises(raised):
            isolation.runsc_flaws(ward)


def test_what_cannot_be_examined_counts_as_broken() -> None:
    def show() -> str:
        raise OSError("no such thing")

    found = found_out("x", "y", show)
    assert (found.state, found.detail) == (
        State.BROKEN,
        "couldn't be examined: no such thing",
    )


# ── The start ────────────────────────────────────────────────────────────────────────────────────

BROKEN = Finding("memory", "memory is limited", State.BROKEN, "it isn't", 1)
GULLIBLE_UMOCI = """#!/bin/sh
# umoci raw unpack --image layout:image ROOT
mkdir -p "$5" && for blob in layout/blobs/sha256/*; do tar -xPf "$blob" -C "$5"; done 2>/dev/null
exit 0
"""


def test_a_broken_promise_is_named_with_what_gives_it_up() -> None:
    with pytest.raises(StartFailed, match="BOXER_GIVE_UP=memory"):
        refuse_broken([BROKEN], ["cpu"])
    refuse_broken([BROKEN], ["memory"])
    refuse_broken([dataclasses.replace(BROKEN, state=State.DOUBTFUL)], [])


def test_only_promises_that_there_are_can_be_given_up() -> None:
    refuse_unknown_names(probes.NAMES)
    with pytest.raises(CommandError, match="nonsense: known are host, runsc"):
        refuse_unknown_names(["memory", "nonsense"])


def test_up_refuses_to_start_where_a_promise_is_broken() -> None:
    home = new_home()
    programs = home / "programs"
    programs.mkdir()
    (programs / "umoci").write_text(GULLIBLE_UMOCI)
    (programs / "umoci").chmod(0o755)
    path = {"PATH": f"{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    refused = Stack(home=home, env=path)
    with pytest.raises(RuntimeError, match="unpacker: an image can't leave its root"):
        refused.start()
    assert "BOXER_GIVE_UP=unpacker" in refused.log
    with Stack(home=home, env={**path, "BOXER_GIVE_UP": "unpacker"}) as started:
        assert "given up: an image can't leave its root" in started.log
        assert started.get("/readyz")[0] == 200


def test_the_start_is_written_down(stack: Stack) -> None:
    [first] = query(stack, "SELECT * FROM doctor_examination ORDER BY id LIMIT 1")
    assert first["quick"]
    assert first["asked_by_id"] is None
    assert first["finished_at"] is not None
    found = query(
        stack,
        "SELECT name, state FROM doctor_examinationfinding WHERE examination_id = %s",
        first["id"],
    )
    assert {"runsc", "network-none", "memory", "unpacker"} <= {str(one["name"]) for one in found}


def test_a_worker_examines_its_host_when_asked(stack: Stack) -> None:
    ask = (
        "from django.contrib.auth.models import User; from executions.doctor import services; "
        "services.ask(user_id=User.objects.get(username='anonymous').pk, quick=True)"
    )
    assert manage("shell", "-c", ask, home=stack.home).returncode == 0
    sql = (
        "SELECT * FROM doctor_examination WHERE asked_by_id IS NOT NULL AND finished_at IS NOT NULL"
    )
    [done] = until(lambda: query(stack, sql), "an examination that has ended", timeout=60)
    sql = "SELECT name, state, detail FROM doctor_examinationfinding WHERE examination_id = %s"
    found = query(stack, sql, done["id"])
    assert [one for one in found if one["state"] == "broken"] == []
    assert {"database", "storage", "runsc"} <= {str(one["name"]) for one in found}


# ── The admin ────────────────────────────────────────────────────────────────────────────────────

PAGE = "/admin/doctor/examination/"


def staff(user: User, *permissions: str) -> Client:
    user.is_staff = True
    user.save(update_fields=["is_staff"])
    chosen = Permission.objects.filter(content_type__app_label="doctor", codename__in=permissions)
    user.user_permissions.set(chosen)
    client = Client()
    client.force_login(user)
    return client


def test_the_admin_shows_what_was_found(alice: User) -> None:
    services.record(findings=[BROKEN], quick=True)
    client = staff(alice, "view_examination", "view_examinationfinding")
    page = client.get(PAGE).content.decode()
    assert "1 broken" in page
    assert "examine/" not in page
    made = Examination.objects.get()
    detail = client.get(f"{PAGE}{made.pk}/change/").content.decode()
    assert BROKEN.promise in detail


def test_only_who_may_can_have_a_host_examined(alice: User, bob: User) -> None:
    client = staff(alice, "view_examination")
    assert client.get(f"{PAGE}examine/").status_code == 403
    assert client.post(f"{PAGE}examine/").status_code == 403
    assert Client().post(f"{PAGE}examine/").status_code == 302, "to the login"
    ordinary = Client()
    ordinary.force_login(bob)
    assert ordinary.post(f"{PAGE}examine/").status_code == 302
    assert not Examination.objects.exists()


def test_the_admin_asks_first_and_then_queues_one(alice: User) -> None:
    client = staff(alice, "view_examination", "examine")
    assert "Examine a host" in client.get(PAGE).content.decode()
    assert 'type="submit"' in client.get(f"{PAGE}examine/").content.decode()
    assert not Examination.objects.exists()
    assert client.post(f"{PAGE}examine/", {"quick": "on"}).status_code == 302
    asked = Examination.objects.get()
    assert (asked.asked_by, asked.quick, asked.finished_at) == (alice, True, None)
    assert OrmQ.objects.count() == 1
    assert "not finished" in client.get(PAGE).content.decode()


def test_a_message_that_comes_twice_examines_once(alice: User) -> None:
    asked = services.ask(user_id=alice.pk, quick=True)
    assert services.begin(examination_id=asked.pk) is not None
    tasks.examine(asked.pk)
    assert Examination.objects.get().finished_at is None


def test_old_examinations_go(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "KEPT", 2)
    made = [services.record(findings=[BROKEN], quick=True).pk for _ in range(4)]
    assert sorted(Examination.objects.values_list("pk", flat=True)) == made[2:]


@pytest.mark.parametrize("path", ["/admin/login/", PAGE, f"{PAGE}examine/"])
def test_no_page_of_it_has_anything_inline(alice: User, path: str) -> None:
    from tests.test_page_security import INLINE

    client = Client() if "login" in path else staff(alice, "view_examination", "examine")
    response = client.get(path)
    assert response.status_code == 200
    assert INLINE.search(response.content.decode()) is None
    assert "unsafe" not in response["Content-Security-Policy"]
