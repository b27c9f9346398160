"""Rules for images: which one decides, for whom, and what a pinned tag means."""

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django_q.models import OrmQ

from executions import audit, hosts, services
from executions.actor import Actor
from executions.audit.models import Entry
from executions.errors import ImageRefused, QueueFull
from executions.image_policy import inventory, known, prefetches
from executions.image_policy.decision import Terms, decide
from executions.image_policy.enforcement import Refused, held
from executions.image_policy.models import CachedImage, Pin, Prefetch, Rule
from executions.models import Execution
from executions.sandbox.images import ImageStore, ImageTooLarge
from executions.sandbox.manifests import ARCHITECTURE
from tests.made_images import ARCHITECTURE as THIS
from tests.made_images import Entry as File
from tests.made_images import Layout, add_image, oci_image
from tests.registry import Registry
from tests.test_services import request as run_request

urlpatterns = [path("admin/", admin.site.urls)]

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:No directory at"),
]

DIGEST = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"
ALICE = Actor(1, "alice")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    known.forget()
    yield
    known.forget()


def rule(pattern: str, action: str = "allow", **more: Any) -> Rule:
    name = more.pop("name", f"{action} {pattern}")
    return Rule.objects.create(name=name, pattern=pattern, action=action, **more)


def of(user: User) -> Actor:
    return Actor(user.pk, user.username)


def cached(reference: str, digest: str = DIGEST, host: str = "elsewhere", size: int = 1) -> None:
    CachedImage.objects.create(
        host=host, digest=digest, references=[reference], size=size, last_used=datetime.now(UTC)
    )


# ── Which rule ───────────────────────────────────────────────────────────────────────────────────


def test_without_rules_everything_is_allowed_as_it_was_asked_for() -> None:
    decided = decide(actor=ALICE, image="python:3.12-slim")
    assert (decided.image, decided.terms) == ("python:3.12-slim", None)


def test_the_rule_with_the_highest_priority_decides_and_is_named() -> None:
    rule("docker.io/library/*", priority=10)
    rule("docker.io/library/python:2*", "refuse", priority=20, name="no old python")
    rule("*", "refuse", name="nothing else")
    assert decide(actor=ALICE, image="python:3.12").terms is not None
    with pytest.raises(ImageRefused, match=r"'python:2\.7' is refused by the rule 'no old python'"):
        decide(actor=ALICE, image="python:2.7")
    with pytest.raises(ImageRefused, match="'nothing else'"):
        decide(actor=ALICE, image="ghcr.io/somebody/tool")


def test_patterns_see_whole_references_however_they_are_written() -> None:
    rule("docker.io/library/python:latest", "refuse")
    for written in ("python", "python:latest", "docker.io/python", "library/python",
                    "index.docker.io/library/python:latest"):  # fmt: skip
        with pytest.raises(ImageRefused):
            decide(actor=ALICE, image=written)
    assert decide(actor=ALICE, image="python:3").image == "python:3"
    assert decide(actor=ALICE, image="localhost/library/python").image


def test_of_equal_priority_the_older_rule_decides() -> None:
    rule("*", "refuse")
    rule("docker.io/*")
    with pytest.raises(ImageRefused):
        decide(actor=ALICE, image="python")


def test_rules_are_for_a_user_a_group_or_everybody(alice: User, bob: User) -> None:
    staff = Group.objects.create(name="staff")
    bob.groups.add(staff)
    rule("*", priority=3, user=alice, name="alice may")
    rule("docker.io/*", priority=2, group=staff, name="staff may")
    rule("*", "refuse", priority=1)
    assert decide(actor=of(alice), image="ghcr.io/a/b").terms
    assert decide(actor=of(bob), image="python").terms
    with pytest.raises(ImageRefused):
        decide(actor=of(bob), image="ghcr.io/a/b")
    with pytest.raises(ImageRefused):
        decide(actor=Actor(10**6, "nobody"), image="python")


def test_rules_are_read_once_and_changes_are_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    decide(actor=ALICE, image="python")
    with CaptureQueriesContext(connection) as queries:
        for _ in range(50):
            decide(actor=ALICE, image="python")
    assert len(queries) == 0
    rule("*", "refuse")
    with pytest.raises(ImageRefused):
        decide(actor=ALICE, image="python")
    with connection.cursor() as cursor:  # another process
        cursor.execute("DELETE FROM image_policy_rule")
    with pytest.raises(ImageRefused):
        decide(actor=ALICE, image="python")
    later = time.monotonic() + known.TTL_SECS + 0.1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert decide(actor=ALICE, image="python").terms is None


@pytest.mark.parametrize("pattern", ["python:3", "python*", "a b/*", "", "ü/*"])
def test_a_pattern_that_nothing_could_match_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Rule(name="r", pattern=pattern, action="allow").full_clean()
    assert "pattern" in refused.value.message_dict


def test_a_rule_is_not_for_a_user_and_a_group(alice: User) -> None:
    group = Group.objects.create(name="g")
    both = Rule(name="r", pattern="*", action="allow", user=alice, group=group)
    with pytest.raises(ValidationError, match="not for both"):
        both.full_clean()


# ── Pins and what is cached ──────────────────────────────────────────────────────────────────────


def pin(reference: str, digest: str = DIGEST) -> Pin:
    made = Pin(reference=reference, digest=digest)
    made.full_clean()
    made.save()
    return made


def test_a_pinned_tag_means_its_digest_until_that_is_changed() -> None:
    pinned = pin("python:3.12")
    assert decide(actor=ALICE, image="python:3.12").image == (
        f"docker.io/library/python:3.12@{DIGEST}"
    )
    assert decide(actor=ALICE, image="python:3.13").image == "python:3.13"
    pinned.digest = OTHER
    pinned.save()
    assert decide(actor=ALICE, image="python:3.12").image.endswith(OTHER)
    with pytest.raises(ImageRefused, match=f"is pinned to {OTHER}"):
        decide(actor=ALICE, image=f"python:3.12@{DIGEST}")


@pytest.mark.parametrize(
    ("reference", "digest"),
    [("python@" + DIGEST, DIGEST), ("dir:/etc", DIGEST), ("python:3", "sha256:1"), ("", DIGEST)],
)
def test_what_can_not_be_pinned_is_refused(reference: str, digest: str) -> None:
    with pytest.raises(ValidationError):
        pin(reference, digest)


def test_who_may_only_run_what_is_cached_gets_exactly_that() -> None:
    rule("*", "cached", name="no pulls")
    with pytest.raises(ImageRefused, match="'no pulls': it isn't here yet"):
        decide(actor=ALICE, image="python:3.12")
    cached("docker.io/library/python:3.12")
    decided = decide(actor=ALICE, image="python:3.12")
    assert decided.image == f"docker.io/library/python:3.12@{DIGEST}"
    assert Terms.of(decided.terms).cached_only
    CachedImage.objects.update(state=CachedImage.State.REMOVED)
    with pytest.raises(ImageRefused):
        decide(actor=ALICE, image="python:3.12")


# ── A run ────────────────────────────────────────────────────────────────────────────────────────


def test_a_refused_run_leaves_nothing_and_an_allowed_one_its_terms(anonymous: User) -> None:
    hosts.started(host_id="11111111-1111-1111-1111-111111111111", name="h", workers=1,
                  runsc_version="1")  # fmt: skip
    rule("docker.io/library/*", max_bytes=5, priority=1, name="small ones")
    rule("*", "refuse")
    who = of(anonymous)
    with pytest.raises(ImageRefused):
        services.submit(actor=who, request=run_request(image="ghcr.io/a/b"))
    assert not Execution.objects.exists()
    assert not Entry.objects.filter(verb=audit.Verb.RUN_SUBMITTED).exists()
    services.submit(actor=who, request=run_request(image="busybox"))
    execution = Execution.objects.get()
    assert execution.image == "busybox"
    assert Terms.of(execution.image_terms) == Terms("small ones", 5)


@pytest.fixture
def execution(anonymous: User) -> Execution:
    limits = {"cpu_cores": 1, "memory_mb": 64, "pids_limit": 9, "wall_clock_secs": 5, "nofile": 64}
    return Execution(owner=anonymous, cmd=["true"], **limits)


def pushed(registry: Registry, tmp_path: Path, name: str, content: bytes = b"x") -> str:
    registry.push(oci_image(tmp_path / name, [[File("file", content)]]), f"{name}:1")
    return registry.reference(f"{name}:1")


def terms(name: str, **more: Any) -> dict[str, Any]:
    return {"rule": name, **more}


def test_who_brought_an_image_is_kept_from_the_first_time_on(
    store: ImageStore, registry: Registry, tmp_path: Path, execution: Execution, alice: User
) -> None:
    execution.image = pushed(registry, tmp_path, "brought")
    execution.image_terms = terms("a rule")
    with held(store, execution) as image:
        assert image.platform == f"linux/{THIS}"
    row = CachedImage.objects.get()
    assert (row.digest, row.pulled_by, row.rule) == (image.digest, "anonymous", "a rule")
    execution.owner = alice
    with held(store, execution):
        pass
    assert CachedImage.objects.get().pulled_by == "anonymous"


def test_an_image_over_a_rules_size_is_refused_and_others_may_have_it(
    store: ImageStore, registry: Registry, tmp_path: Path, execution: Execution
) -> None:
    execution.image = pushed(registry, tmp_path, "large", b"x" * 500_000)
    execution.image_terms = terms("small ones", max_bytes=100_000)
    for _ in range(2):
        with pytest.raises(Refused, match="the rule 'small ones' allows"), held(store, execution):
            pass
    assert store.cached(execution.image) is None
    execution.image_terms = None
    with held(store, execution) as image:
        assert image.size > 400_000
    execution.image_terms = terms("small ones", max_bytes=100_000)
    with pytest.raises(Refused, match="'small ones' allows 100000"), held(store, execution):
        pass


def test_the_installations_own_limit_is_not_blamed_on_a_rule(
    tmp_path: Path, registry: Registry, execution: Execution
) -> None:
    store = ImageStore(tmp_path / "s", size_limit=100_000, pull_timeout=30, tag_ttl=300)
    execution.image = pushed(registry, tmp_path, "larger", b"x" * 500_000)
    execution.image_terms = terms("r", max_bytes=10**9)
    with pytest.raises(ImageTooLarge), held(store, execution):
        pass


def test_a_platform_is_looked_at_before_and_after_the_pull(
    store: ImageStore, registry: Registry, tmp_path: Path, execution: Execution
) -> None:
    execution.image = pushed(registry, tmp_path, "ours")
    execution.image_terms = terms("only mips", platform="linux/mips")
    with pytest.raises(Refused, match="'only mips' wants linux/mips"), held(store, execution):
        pass
    assert store.cached(execution.image) is None
    layout = Layout(tmp_path / "foreign")
    layout.index([add_image(layout, [[File("file", b"x")]], architecture="mips")])
    registry.push(layout.root, "foreign:1")
    execution.image = registry.reference("foreign:1")
    execution.image_terms = terms("ours alone", platform=f"linux/{ARCHITECTURE}")
    with pytest.raises(Refused, match="it is for linux/mips"), held(store, execution):
        pass


def test_who_may_only_run_what_is_cached_makes_no_host_pull_something_new(
    store: ImageStore, registry: Registry, tmp_path: Path, execution: Execution
) -> None:
    reference = pushed(registry, tmp_path, "gone")
    digest = store.pull(reference).digest
    store.remove(digest)
    execution.image = f"{reference}@{digest}"
    execution.image_terms = terms("no pulls", cached_only=True)
    with pytest.raises(Refused, match="'no pulls' pulls nothing"), held(store, execution):
        pass
    cached(reference, digest, host=inventory.host_name())
    with pytest.raises(Refused), held(store, execution):
        pass
    cached(reference, digest, host="another host")
    with held(store, execution) as image:
        assert image.digest == digest


def test_a_tag_that_grew_old_is_good_enough_for_who_may_not_pull(
    tmp_path: Path, registry: Registry, execution: Execution
) -> None:
    store = ImageStore(tmp_path / "s", size_limit=1 << 20, pull_timeout=30, tag_ttl=0)
    reference = pushed(registry, tmp_path, "old")
    first = store.pull(reference).digest
    pushed(registry, tmp_path, "old", b"newer")
    with store.hold(reference, pull=False) as image:
        assert image.digest == first


def test_the_inventory_tells_what_is_here_and_what_went(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    reference = pushed(registry, tmp_path, "counted")
    teller = inventory.Inventory(store)
    assert teller.tell()
    assert not CachedImage.objects.exists()
    assert not teller.tell(), "nothing has changed"
    digest = store.pull(reference).digest
    assert teller.tell()
    row = CachedImage.objects.get()
    assert (row.digest, row.references, row.state) == (digest, [reference], "here")
    assert (row.host, row.pulled_by) == (inventory.host_name(), "")
    store.remove(reference)
    assert teller.tell()
    assert CachedImage.objects.get().state == "removed"
    store.pull(reference)
    assert teller.tell()
    assert CachedImage.objects.get().state == "here"


# ── The admin ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.urls(__name__)
def test_rules_and_pins_are_made_in_the_admin_and_written_down(admin_client: Client) -> None:
    added = admin_client.post(
        "/admin/image_policy/rule/add/",
        {"name": "none", "pattern": "*", "action": "refuse", "priority": "0"},
    )
    assert added.status_code == 302
    with pytest.raises(ImageRefused):
        decide(actor=ALICE, image="python")
    made = Rule.objects.get()
    wrong = admin_client.post(
        "/admin/image_policy/rule/add/",
        {"name": "two", "pattern": "python", "action": "allow", "priority": "0"},
    )
    assert "Must match whole references" in wrong.content.decode()
    admin_client.post(f"/admin/image_policy/rule/{made.pk}/delete/", {"post": "yes"})
    admin_client.post(
        "/admin/image_policy/pin/add/", {"reference": "python:3.12", "digest": DIGEST}
    )
    assert Pin.objects.get().reference == "docker.io/library/python:3.12"
    verbs = Entry.objects.filter(username="admin").order_by("id").values_list("verb", flat=True)
    assert [verb for verb in verbs if verb.startswith("image_")] == [
        "image_rule_created",
        "image_rule_deleted",
        "image_pin_created",
    ]
    cached("docker.io/library/python:3.12")
    page = admin_client.get("/admin/image_policy/cachedimage/").content.decode()
    assert "docker.io/library/python:3.12" in page


@pytest.mark.urls(__name__)
def test_the_admin_prefetches_and_cancels(admin_client: Client) -> None:
    add = "/admin/image_policy/prefetch/add/"
    rule("ghcr.io/*", "refuse", name="no ghcr")
    assert "no ghcr" in admin_client.post(add, {"image": "ghcr.io/a/b"}).content.decode()
    assert "is not an image" in admin_client.post(add, {"image": "dir:/etc"}).content.decode()
    assert not Prefetch.objects.exists()
    assert admin_client.post(add, {"image": "python:3.12"}).status_code == 302
    made = Prefetch.objects.get()
    assert (made.reference, made.requested_by) == ("docker.io/library/python:3.12", "admin")
    assert OrmQ.objects.filter(pk=made.message_id).exists()
    Prefetch.objects.update(bytes_total=2_000_000, bytes_done=1_000_000, layers_total=4)
    listed = admin_client.get("/admin/image_policy/prefetch/").content.decode()
    assert "1.0 of 2.0 MB, 0 of 4 layers" in listed
    chosen = {"action": "cancel", "_selected_action": [str(made.pk)]}
    admin_client.post("/admin/image_policy/prefetch/", chosen)
    made.refresh_from_db()
    assert made.state == "cancelled"
    assert not OrmQ.objects.filter(pk=made.message_id).exists()
    page = f"/admin/image_policy/prefetch/{made.pk}"
    assert admin_client.get(f"{page}/change/").status_code == 200
    assert admin_client.post(f"{page}/delete/", {"post": "yes"}).status_code == 403
    verbs = Entry.objects.filter(object_id=str(made.pk)).order_by("id")
    assert list(verbs.values_list("verb", flat=True)) == [
        "image_prefetched",
        "image_prefetch_cancelled",
    ]


def test_no_more_prefetches_wait_than_may(alice: User) -> None:
    Prefetch.objects.bulk_create(
        Prefetch(image="a", reference="a", requested_by="x") for _ in range(prefetches.MOST_WAITING)
    )
    with pytest.raises(QueueFull):
        prefetches.request(actor=of(alice), image="python")


def test_prefetches_of_lost_hosts_have_failed_and_others_have_not(alice: User) -> None:
    alive, silent = (str(uuid.uuid4()) for _ in range(2))
    for host in (alive, silent):
        hosts.started(host_id=host, name="h", workers=1, runsc_version="1")
    hosts.stopped(host_id=silent)
    made = [prefetches.request(actor=of(alice), image="python") for _ in range(3)]
    for prefetch, host in zip(made, (alive, silent), strict=False):
        claimed = prefetches.claim(prefetch_id=str(prefetch.pk), host_id=host, worker="w", host="h")
        assert claimed is not None
    assert (
        prefetches.claim(prefetch_id=str(made[0].pk), host_id=silent, worker="v", host="h") is None
    )
    assert prefetches.reap_lost_hosts() == 1
    states = [Prefetch.objects.get(pk=prefetch.pk).state for prefetch in made]
    assert states == ["resolving", "failed", "queued"]
    assert prefetches.reap_worker(host_id=alive, worker="w") == 1
