"""Middleware: sessions, messages and forms work under ASGI, and requests without them are cheap."""

import os
import subprocess
import sys
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient
from django.urls import include, path
from django.views.decorators.csrf import ensure_csrf_cookie

from tests.answers import error_of
from tests.environment import new_home

pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db(transaction=True)]


def remember(request: HttpRequest) -> HttpResponse:
    request.session["word"] = "sandbox"
    messages.info(request, "remembered")
    return HttpResponse("ok")


def recall(request: HttpRequest) -> HttpResponse:
    told = [str(message) for message in messages.get_messages(request)]
    return HttpResponse(f"{request.session.get('word')} {told} {request.user}")


@ensure_csrf_cookie
def form(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.method or "")


urlpatterns = [
    path("remember", remember),
    path("recall", recall),
    path("form", form),
    path("", include("executions.api.urls")),
]


async def test_a_session_and_its_messages_last(async_client: AsyncClient, alice: User) -> None:
    await async_client.aforce_login(alice)
    assert (await async_client.get("/remember")).status_code == 200
    assert (await async_client.get("/recall")).content == b"sandbox ['remembered'] alice"
    assert (await async_client.get("/recall")).content == b"sandbox [] alice"


async def test_a_form_without_its_token_is_refused() -> None:
    client = AsyncClient(enforce_csrf_checks=True)
    assert (await client.get("/form")).content == b"GET"
    error_of(await client.post("/form"), 403, "csrf_failed")
    page = await client.post("/form", headers={"Accept": "text/html"})
    assert (page.status_code, page["Content-Type"][:9]) == (403, "text/html")


async def test_a_form_with_its_token_passes() -> None:
    client = AsyncClient(enforce_csrf_checks=True)
    await client.get("/form")
    token = client.cookies["boxer_csrf"].value
    response = await client.post("/form", {"csrfmiddlewaretoken": token})
    assert response.content == b"POST"


async def test_answers_carry_the_headers_of_safety(async_client: AsyncClient) -> None:
    response = await async_client.get("/healthz")
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert "Set-Cookie" not in response


async def test_health_switches_to_no_thread(
    async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    switches: list[str] = []
    call = SyncToAsync.__call__

    async def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        switches.append(getattr(self.func, "__qualname__", repr(self.func)))
        return await call(self, *args, **kwargs)

    monkeypatch.setattr(SyncToAsync, "__call__", counted)
    await async_client.get("/healthz")
    # What is left are Django's own signals at the start and the end of a request.
    assert not [name for name in switches if "sync_send" not in name and "close" not in name]


@pytest.mark.urls("boxer_site.urls")
def test_the_asgi_application_can_be_imported_by_any_server() -> None:
    code = "from boxer_site.asgi import application; print(type(application).__name__)"
    env = {**os.environ, "BOXER_HOME": str(new_home())}
    env.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "Farewell\n", "")
