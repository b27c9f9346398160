"""Tokens, pages and groups, looked at from inside."""

import re
from datetime import timedelta
from hashlib import sha512

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from executions.accounts import services
from executions.accounts.models import Token
from executions.errors import InvalidRequest
from executions.models import Execution
from filestore.models import StoredFile
from tests.answers import error_of

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
TOKENS = "/api/v1/tokens/"


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def logged_in(client: Client, user: User) -> Client:
    user.set_password(PASSWORD)
    user.save()
    done = client.post("/login", {"username": user.username, "password": PASSWORD})
    assert done.status_code == 302
    return client


# ── Tokens ───────────────────────────────────────────────────────────────────────────────────────


def test_only_a_hash_of_a_token_is_kept(alice: User) -> None:
    token, secret = services.create_token(user_id=alice.pk, name="ci")
    token.refresh_from_db()
    assert token.digest == sha512(secret.encode()).hexdigest()
    kept = "".join(str(value) for value in Token.objects.values().get().values())
    assert secret not in kept
    assert secret.startswith("boxer_")
    assert len(secret) >= 64


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a", "days": 0}, "days"),
        ({"name": "a", "days": services.MAX_DAYS + 1}, "days"),
    ],
)
def test_a_bad_name_or_life_is_refused(alice: User, given: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        services.create_token(user_id=alice.pk, **given)  # type: ignore[arg-type]
    assert list(refused.value.fields) == [field]
    assert not Token.objects.exists()


def test_there_is_a_bound_on_tokens(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_TOKENS", 2)
    for name in ("a", "b"):
        services.create_token(user_id=alice.pk, name=name)
    with pytest.raises(InvalidRequest, match="revoke one first"):
        services.create_token(user_id=alice.pk, name="c")


def test_a_request_by_token_costs_one_query_more_and_notes_its_use_once_a_minute(
    client: Client, alice: User
) -> None:
    token, secret = services.create_token(user_id=alice.pk, name="ci")
    with CaptureQueriesContext(connection) as first:
        assert client.get(TOKENS, headers=bearer(secret)).status_code == 200
    with CaptureQueriesContext(connection) as second:
        assert client.get(TOKENS, headers=bearer(secret)).status_code == 200
    # The token with its user, and the list; the first time its use is noted.
    assert (len(first), len(second)) == (3, 2), [query["sql"] for query in second]
    token.refresh_from_db()
    used = token.last_used_at
    assert used is not None
    Token.objects.update(last_used_at=used - timedelta(minutes=2))
    client.get(TOKENS, headers=bearer(secret))
    token.refresh_from_db()
    assert token.last_used_at is not None
    assert token.last_used_at >= used


def test_anonymous_costs_no_query(client: Client, anonymous: User) -> None:
    client.get(TOKENS)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(TOKENS).status_code == 403
    assert len(captured) == 0


def test_a_token_that_ended_or_whose_user_is_inactive_opens_nothing(
    client: Client, alice: User
) -> None:
    token, secret = services.create_token(user_id=alice.pk, name="ci")
    Token.objects.update(expiry=timezone.now() - timedelta(seconds=1))
    error_of(client.get(TOKENS, headers=bearer(secret)), 401, "bad_token")
    Token.objects.update(expiry=timezone.now() + timedelta(days=1))
    get_user_model().objects.filter(pk=alice.pk).update(is_active=False)
    error_of(client.get(TOKENS, headers=bearer(secret)), 401, "bad_token")
    get_user_model().objects.filter(pk=alice.pk).update(is_active=True)
    assert client.get(TOKENS, headers=bearer(secret)).status_code == 200
    # Its beginning alone finds it, and opens nothing.
    error_of(client.get(TOKENS, headers=bearer(secret[:-1] + "x")), 401, "bad_token")
    assert services.revoke_token(token_id=token.pk)
    error_of(client.get(TOKENS, headers=bearer(secret)), 401, "bad_token")


@override_settings(BOXER_ANONYMOUS=False)
def test_without_anonymous_no_credentials_are_401(client: Client, anonymous: User) -> None:
    error_of(client.get("/files", {"path": "a"}), 401, "not_authenticated")
    error_of(client.get(TOKENS), 401, "not_authenticated")


def test_the_command_names_what_is_wrong(alice: User) -> None:
    for words, told in [
        (["create", "nobody", "--name", "a"], "no user 'nobody'"),
        (["create", "alice", "--name", "a", "--days", "0"], "days: must be"),
        (["list", "nobody"], "no user 'nobody'"),
        (["revoke", "7"], "no token 7"),
    ]:
        with pytest.raises(CommandError, match=told):
            call_command("token", *words)


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────


def test_the_account_page_makes_shows_once_and_revokes(client: Client, alice: User) -> None:
    page = logged_in(client, alice)
    made = page.post("/account/tokens", {"name": "laptop", "days": 7})
    [secret] = re.findall(r'value="(boxer_[0-9a-f]+)"', made.content.decode())
    assert "no-store" in made["Cache-Control"]
    assert Client().get(TOKENS, headers=bearer(secret)).status_code == 200
    again = page.get("/account/").content.decode()
    assert "laptop" in again
    assert secret not in again
    token = Token.objects.get()
    done = page.post(f"/account/tokens/{token.pk}/revoke", follow=True)
    assert "The token is revoked." in done.content.decode()
    assert not Token.objects.exists()


def test_the_pages_want_a_login_and_a_csrf_token(alice: User) -> None:
    strict = Client(enforce_csrf_checks=True)
    asked = strict.get("/account/")
    assert (asked.status_code, asked["Location"]) == (302, "/login?next=/account/")
    form = {"username": "alice", "password": PASSWORD}
    error_of(strict.post("/login", form), 403, "csrf_failed")
    strict.force_login(alice)
    error_of(strict.post("/account/tokens", {"name": "a", "days": 1}), 403, "csrf_failed")
    error_of(strict.post("/logout"), 403, "csrf_failed")
    error_of(strict.post(TOKENS, {"name": "a"}, "application/json"), 403, "csrf_failed")
    assert not Token.objects.exists()


@pytest.mark.parametrize(
    ("wanted", "led"),
    [
        ("/admin/", "/admin/"),
        ("https://elsewhere.example/", "/account/"),
        ("//elsewhere.example/", "/account/"),
        ("javascript:alert(1)", "/account/"),
    ],
)
def test_next_leads_to_this_host_alone(client: Client, alice: User, wanted: str, led: str) -> None:
    alice.set_password(PASSWORD)
    alice.save()
    form = {"username": "alice", "password": PASSWORD, "next": wanted}
    assert client.post("/login", form)["Location"] == led


def test_logging_out_is_by_post_and_ends_the_session(client: Client, alice: User) -> None:
    page = logged_in(client, alice)
    assert page.get("/logout").status_code == 405
    assert page.post("/logout")["Location"] == "/login"
    assert page.get("/account/").status_code == 302


def test_a_new_password_wants_the_old_one_and_ends_other_sessions(
    client: Client, alice: User
) -> None:
    page, other = logged_in(client, alice), logged_in(Client(), alice)
    page = logged_in(client, alice)
    new = {"new_password1": "another long one", "new_password2": "another long one"}
    wrong = page.post("/account/password", {"old_password": "wrong", **new})
    assert wrong.status_code == 400
    weak = {"old_password": PASSWORD, "new_password1": "12345", "new_password2": "12345"}
    assert page.post("/account/password", weak).status_code == 400
    assert page.post("/account/password", {"old_password": PASSWORD, **new}).status_code == 302
    assert page.get("/account/").status_code == 200
    assert other.get("/account/").status_code == 302


def test_nothing_on_the_pages_is_inline_or_unescaped(client: Client, alice: User) -> None:
    from tests.test_page_security import INLINE

    name = "<script>alert(1)</script>"
    services.create_token(user_id=alice.pk, name=name)
    login = client.get("/login").content.decode()
    html = logged_in(client, alice).get("/account/").content.decode()
    for page in (login, html):
        assert INLINE.search(page) is None
        for asset in re.findall(r"""(?:src|href)="(/static/[^"]*)\"""", page):
            assert client.get(asset).status_code == 200
    assert "&lt;script&gt;" in html


# ── Groups and staff ─────────────────────────────────────────────────────────────────────────────


def permissions(group: str) -> set[str]:
    found = Group.objects.get(name=group).permissions.select_related("content_type")
    return {f"{one.content_type.app_label}.{one.codename}" for one in found}


def test_three_groups_are_there_and_none_may_give_permissions() -> None:
    for group in ("Operators", "Auditors", "Reviewers"):
        assert "executions.view_all" in permissions(group)
        assert not permissions(group) & {
            *("auth.change_user", "auth.add_user", "auth.change_group", "auth.add_group"),
        }
    reads = {name.partition(".")[2].partition("_")[0] for name in permissions("Auditors")}
    assert reads == {"view"}
    assert "executions.manage_all" in permissions("Operators")


def test_a_group_lets_its_members_see_everything(alice: User, bob: User) -> None:
    limits = {"cpu_cores": 1, "memory_mb": 64, "pids_limit": 8, "wall_clock_secs": 1, "nofile": 64}
    run = Execution.objects.create(owner=alice, image="a", cmd=["true"], **limits)
    assert not Execution.objects.visible_to(bob).exists()
    bob.groups.add(Group.objects.get(name="Reviewers"))
    bob = get_user_model().objects.get(pk=bob.pk)
    assert list(Execution.objects.visible_to(bob)) == [run]
    assert str(StoredFile.objects.visible_to(bob).query).count("owner_id") > 1, "not files"


def test_staff_see_and_revoke_tokens_in_the_admin_and_no_secret(
    client: Client, alice: User
) -> None:
    boss = get_user_model().objects.create_user("boss", is_staff=True)
    boss.groups.add(Group.objects.get(name="Operators"))
    token, secret = services.create_token(user_id=alice.pk, name="ci")
    client.force_login(boss)
    pages = ["/admin/accounts/token/", f"/admin/accounts/token/{token.pk}/change/"]
    for page in pages:
        html = client.get(page).content.decode()
        assert "ci" in html
        assert secret not in html
        assert token.digest not in html
        assert token.token_key not in html
    action = {"action": "revoke", "_selected_action": [token.pk]}
    assert client.post(pages[0], action).status_code == 302
    assert not Token.objects.exists()


def test_the_first_admin_is_made_where_there_is_no_superuser() -> None:
    password = services.make_first_admin()
    admin = get_user_model().objects.get(username="admin")
    assert admin.is_superuser
    assert admin.check_password(password)
    assert services.make_first_admin() == ""


def test_somebodys_account_is_not_made_an_admin() -> None:
    get_user_model().objects.create_user("admin")
    assert services.make_first_admin() == ""
    assert not get_user_model().objects.get(username="admin").is_superuser
