"""Through no route there is does a user reach what belongs to another; staff may look."""

import re
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.contrib.admin import site
from django.urls import URLResolver, get_resolver

from tests.fixtures_accounts import Account
from tests.ownership import GUARDED, LISTS, OPEN, OWNED, Asked, Belongings
from tests.stack import Stack
from tests.stack_access import query

ADMIN = "/admin/"


def routes(patterns: list[Any], prefix: str = "/") -> Iterator[str]:
    for pattern in patterns:
        path = f"{prefix}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, path)
        else:
            yield path


ROUTES = frozenset(routes(get_resolver().url_patterns))


def belongings(account: Account, image: str) -> Belongings:
    content = f"content-{uuid.uuid4()}"
    path = f"own/{uuid.uuid4()}.txt"
    with account.client() as client:
        stored = client.post("/files", data={"path": path}, files={"file": content.encode()})
        assert stored.status_code == 200, stored.text
        script = f"echo {content} > /output/left.txt; echo {content}"
        body = {"image": image, "cmd": ["sh", "-c", script], "persist": True}
        ran = client.post("/run", json=body)
        assert ran.status_code == 200, ran.text
        name = f"token-{uuid.uuid4()}"
        token = client.post("/api/v1/tokens/", json={"name": name})
        assert token.status_code == 201, token.text
        made = client.post("/api/v1/batches/", json={"runs": [{"image": image, "cmd": ["true"]}]})
        assert made.status_code == 202, made.text
        batch_id = made.json()["batch_id"]
        assert client.get(f"/api/v1/batches/{batch_id}/results/").status_code == 200
    exec_id = ran.json()["exec_id"]
    output = f"output/{exec_id}/left.txt"
    return Belongings(exec_id, path, content, output, token.json()["id"], name, batch_id)


@pytest.fixture(scope="module")
def theirs(accounts: dict[str, Account], busybox_reference: str) -> Belongings:
    """What carol has."""
    return belongings(accounts["carol"], busybox_reference)


def ask(client: httpx.Client, asked: Asked) -> httpx.Response:
    return client.request(
        asked.method, asked.path, params=asked.params, json=asked.json, data=asked.form
    )


def askers(account: Account, *, page: bool) -> Iterator[httpx.Client]:
    if not page:
        with account.client() as client:
            yield client
    with account.browser() as browser:
        yield browser


def reaches_nothing(response: httpx.Response, asked: Asked, theirs: Belongings) -> None:
    assert response.status_code == asked.refused, (asked, response.status_code, response.text)
    # What the request itself named may be repeated.
    named = f"{asked.path} {asked.params} {asked.json} {asked.form}"
    assert [mark for mark in theirs.marks if mark in response.text and mark not in named] == []


def test_every_route_is_in_the_table() -> None:
    known = {*OWNED, *LISTS, *GUARDED, *OPEN}
    assert {route for route in ROUTES - known if not route.startswith(ADMIN)} == set()
    assert known - ROUTES == set(), "these routes are gone"


def test_another_user_reaches_nothing_and_the_owner_does(
    accounts: dict[str, Account], busybox_reference: str
) -> None:
    theirs = belongings(accounts["carol"], busybox_reference)
    requests = sorted(
        (asked for route in OWNED.keys() & ROUTES for asked in OWNED[route](theirs)),
        key=lambda asked: asked.destroys + 2 * asked.page,
    )
    for asked in requests:
        for client in askers(accounts["dave"], page=asked.page):
            reaches_nothing(ask(client, asked), asked, theirs)
    for asked in requests:
        carol = accounts["carol"]
        with carol.browser() if asked.page else carol.client() as client:
            response = ask(client, asked)
        assert response.status_code == asked.found, (asked, response.text)


def test_lists_show_ones_own_alone(accounts: dict[str, Account], busybox_reference: str) -> None:
    own = belongings(accounts["dave"], busybox_reference)
    for path, listed in ((path, LISTS[path]) for path in LISTS.keys() & ROUTES):
        for client in askers(accounts["dave"], page=listed.page):
            shown = client.get(path)
            assert (shown.status_code, listed.shows(own) in shown.text) == (200, True)
        for who in ("carol",) if listed.all_for_staff else ("carol", "auditor"):
            for client in askers(accounts[who], page=listed.page):
                shown = client.get(path)
                assert shown.status_code == 200
                assert [mark for mark in own.marks if mark in shown.text] == []


def test_what_belongs_to_the_installation_wants_a_permission(accounts: dict[str, Account]) -> None:
    samples = {"<uuid:": str(uuid.uuid4()), "<row:": "1", "<int:": "1"}
    for route in GUARDED:
        path = route
        for kind, value in samples.items():
            path = re.sub(f"{kind}[a-z_]+>", value, path)
        with accounts["dave"].client() as client:
            found = {
                client.request(method, path).status_code for method in ("GET", "POST", "DELETE")
            }
        assert found <= {403, 405}, route
        assert 403 in found, route


def test_the_admin_is_for_staff_alone(accounts: dict[str, Account], theirs: Belongings) -> None:
    pages = ["/admin/"]
    for model in site._registry:
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        pages += [base, f"{base}add/", f"{base}1/change/", f"{base}1/delete/", f"{base}1/history/"]
    assert len(pages) > 20
    with accounts["dave"].browser() as browser:
        for page in pages:
            response = browser.get(page)
            assert response.status_code == 302, page
            assert response.headers["Location"].startswith("/admin/login/?next=/admin/")


def test_the_same_path_of_two_users_is_two_files(accounts: dict[str, Account]) -> None:
    path = f"shared/{uuid.uuid4()}.txt"
    for who in ("carol", "dave"):
        with accounts[who].client() as client:
            sent = client.post("/files", data={"path": path}, files={"file": who.encode()})
            assert sent.status_code == 200
    for who in ("carol", "dave"):
        with accounts[who].client() as client:
            assert client.get("/files", params={"path": path}).text == who


def test_who_may_see_everything_gets_what_a_run_left_and_uses_no_files(
    stack: Stack, accounts: dict[str, Account], theirs: Belongings
) -> None:
    with accounts["auditor"].client() as client:
        left = client.get("/files", params={"path": theirs.output_path})
        assert (left.status_code, left.text) == (200, f"{theirs.content}\n")
        body = {"image": "busybox", "cmd": ["true"], "files": [theirs.path]}
        used = client.post("/run", json=body)
        assert (used.status_code, used.json()["code"]) == (400, "file_not_found")
        # A plain path means one's own file, whoever asks.
        assert client.get("/files", params={"path": theirs.path}).status_code == 404
    [entry] = query(stack, "SELECT * FROM audit_entry WHERE object_id = %s", theirs.output_path)
    assert (entry["username"], entry["token"]) == ("auditor", "token of auditor")
    assert entry["owner_id"] == accounts["carol"].user_id
