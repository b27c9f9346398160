"""Every address of the admin, as everybody who might ask for it."""

import importlib
import re
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import connection, migrations
from django.test import Client
from django.urls import URLPattern, URLResolver, reverse
from django.utils import timezone

from executions.accounts.services import create_token
from executions.audit import Verb, record
from executions.audit.models import Entry
from executions.audit.requests import local_actor
from executions.callbacks.models import Delivery
from executions.doctor.models import Examination
from executions.image_policy.models import CachedImage, Pin, Prefetch, Rule
from executions.models import Execution, WorkerHost
from executions.quotas.models import Quota
from filestore.models import Blob, StoredFile

pytestmark = [pytest.mark.django_db, pytest.mark.filterwarnings("ignore:No directory at")]

GRANTS = (
    "executions.accounts.migrations.0002_groups",
    "executions.image_policy.migrations.0003_grants",
    "executions.quotas.migrations.0002_operators",
    "executions.administration.migrations.0001_grants",
)
ALL = {
    "auth.user": "vacd",
    "auth.group": "vacd",
    "accounts.token": "vd",
    "audit.entry": "v",
    "callbacks.delivery": "v",
    "doctor.examination": "vd",
    "executions.execution": "v",
    "executions.workerhost": "v",
    "filestore.blob": "v",
    "filestore.storedfile": "vd",
    "image_policy.cachedimage": "v",
    "image_policy.pin": "vacd",
    "image_policy.prefetch": "va",
    "image_policy.rule": "vacd",
    "quotas.quota": "vacd",
}
"""Whatever is registered, with what a superuser may: view, add, change, delete."""
EXPECTED = {
    "superuser": ALL,
    "Operators": ALL | {"auth.user": "v", "auth.group": "v", "doctor.examination": "v"},
    "Auditors": dict.fromkeys(ALL, "v"),
    "Reviewers": {"executions.execution": "v"},
    "staff": {},
}
EXTRA = {
    # Names of pages that not every model has: whose they are, and which roles may see them.
    "doctor_examination_examine": {"superuser", "Operators"},
    "auth_user_password_change": {"superuser"},
    "admin-overview": {"superuser", "Operators", "Auditors"},
}
OF_THE_SITE = {
    "index": 200,
    "login": 200,
    "logout": 405,
    "password_change": 200,
    "password_change_done": 200,
    "jsi18n": 200,
    "autocomplete": 403,
    "view_on_site": 404,
}
"""What everybody in the staff is answered."""
NEEDS = {"changelist": "v", "add": "a", "history": "v", "delete": "d", "change": "v"}


@pytest.fixture
def groups() -> None:
    """Those of the migrations, also where a test has flushed the database."""
    real: Any = apps
    editor: Any = SimpleNamespace(connection=connection)
    for name in GRANTS:
        for operation in importlib.import_module(name).Migration.operations:
            if isinstance(operation, migrations.RunPython):
                operation.code(real, editor)


@pytest.fixture
def objects(groups: None) -> dict[str, Any]:
    """One row of each model that the admin shows."""
    now = timezone.now()
    owner = User.objects.create_user("ann")
    host = WorkerHost.objects.create(name="here", workers=2, seen_at=now)
    execution = Execution.objects.create(
        owner=owner, image="busybox", cmd=["true"], host=host, cpu_cores=1, memory_mb=64,
        pids_limit=8, wall_clock_secs=5, nofile=64,
    )  # fmt: skip
    blob = Blob.objects.create(sha256="0" * 64, size=1, name="0", state=Blob.State.READY)
    stored = StoredFile.objects.create(owner=owner, path="a/b", blob=blob)
    record(local_actor(), Verb.RUN_VIEWED, "executions.execution", execution.exec_id)
    delivery = Delivery.objects.create(
        user=owner, execution=execution, event="execution.ended", url="http://192.0.2.1/",
        created_at=now, due_at=now, give_up_at=now + timedelta(days=1),
    )  # fmt: skip
    rows = [
        owner, host, execution, blob, stored, delivery,
        create_token(user_id=owner.pk, name="laptop")[0],
        Group.objects.get(name="Auditors"),
        Entry.objects.latest("pk"),
        Examination.objects.create(host="here", finished_at=now),
        CachedImage.objects.create(digest="sha256:" + "0" * 64, host="here", last_used=now, size=1),
        Pin.objects.create(reference="docker.io/library/busybox:1", digest="sha256:" + "0" * 64),
        Prefetch.objects.create(image="busybox", reference="docker.io/library/busybox:latest"),
        Rule.objects.create(name="all", pattern="*", action="allow"),
        Quota.objects.create(user=owner),
    ]  # fmt: skip
    return {row._meta.label_lower: row.pk for row in rows}


def client_of(role: str) -> Client:
    client = Client()
    if role == "anonymous":
        return client
    user = User.objects.create_user(role, is_staff=role != "plain")
    if role == "superuser":
        User.objects.filter(pk=user.pk).update(is_superuser=True)
    elif role in EXPECTED and role != "staff":
        user.groups.add(Group.objects.get(name=role))
    client.force_login(user)
    return client


def patterns(
    found: list[URLPattern | URLResolver], before: str = "/admin/"
) -> Iterator[tuple[str, str]]:
    for one in found:
        if isinstance(one, URLPattern):
            yield f"{before}{one.pattern}", one.name or ""
        else:
            yield from patterns(one.url_patterns, f"{before}{one.pattern}")


def addresses(objects: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Address, name, and the model whose page it is."""
    for pattern, name in patterns(admin.site.get_urls()):
        words = pattern.split("/")
        model = ".".join(words[2:4]) if len(words) > 4 else ""
        if "(?P" in pattern:
            continue  # the pages of apps and the rest, which have a test of their own
        number = str(objects.get(model, 1))
        address = re.sub("<(path:object_id|id|path:content_type_id)>", number, pattern)
        yield address, name, model if model in objects else ""
    yield reverse("admin-overview"), "admin-overview", ""


def expected(role: str, name: str, model: str) -> int:
    if name in EXTRA:
        return 200 if role in EXTRA[name] else 403
    if not model:
        return OF_THE_SITE[name]
    if not name:
        return 302  # to the page of a row, whoever asks
    if model == "filestore.storedfile" and model not in EXPECTED[role] and "history" in name:
        return 302  # to the index: for who may not see everybody's it isn't there
    return 200 if NEEDS[name.rpartition("_")[2]] in EXPECTED[role].get(model, "") else 403


def test_the_table_has_every_model_of_the_admin() -> None:
    registered = {model._meta.label_lower for model in admin.site._registry}
    assert registered == set(ALL)


@pytest.mark.parametrize("role", EXPECTED)
def test_each_page_answers_as_the_table_says(role: str, objects: dict[str, Any]) -> None:
    client = client_of(role)
    wrong = []
    for address, name, model in addresses(objects):
        status = client.get(address).status_code
        if status != expected(role, name, model):
            wrong.append(f"{address}: {status}, not {expected(role, name, model)}")
        if model and status == 403:
            posted = client.post(address, {"post": "yes"}).status_code
            wrong += [f"POST {address}: {posted}"] if posted != 403 else []
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("role", ["anonymous", "plain"])
def test_who_is_not_staff_is_sent_to_the_login(role: str, objects: dict[str, Any]) -> None:
    client = client_of(role)
    for address, name, _ in addresses(objects):
        if name in {"login", "logout", "jsi18n"}:
            continue
        answer = client.get(address)
        assert answer.status_code == 302, address
        assert answer["Location"].startswith("/admin/login/"), address


@pytest.mark.parametrize("role", EXPECTED)
def test_the_index_names_what_may_be_seen_and_nothing_else(
    role: str, objects: dict[str, Any]
) -> None:
    client = client_of(role)
    index = client.get("/admin/").content.decode()
    for model in ALL:
        page = reverse(f"admin:{model.replace('.', '_')}_changelist")
        assert (f'href="{page}"' in index) == (model in EXPECTED[role]), model
    assert ("/admin/overview/" in index) == (role in EXTRA["admin-overview"])
    for app in {model.partition(".")[0] for model in ALL}:
        seen = any(model.startswith(f"{app}.") for model in EXPECTED[role])
        assert client.get(f"/admin/{app}/").status_code == (200 if seen else 404), app
    assert client.get("/admin/nowhere/").status_code == 404


@pytest.mark.parametrize("role", [*EXPECTED, "plain"])
def test_no_page_shows_a_secret(role: str, objects: dict[str, Any]) -> None:
    token = apps.get_model("accounts.Token").objects.get()
    password = User.objects.get(username="ann").password
    client = client_of(role)
    for address, _, model in addresses(objects):
        if model in {"accounts.token", "auth.user"}:
            page = client.get(address).content.decode()
            assert token.digest not in page
            assert password not in page
