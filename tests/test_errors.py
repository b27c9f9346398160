"""Errors: whatever goes wrong, the answer has one shape and tells nothing that it shouldn't."""

import logging
from typing import Any, cast

import httpx
import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError, connections
from django.http import Http404, HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path
from psycopg_pool import PoolTimeout
from rest_framework import exceptions

from boxer_site import errors as http
from boxer_site.asgi import application
from executions import errors
from filestore import errors as files
from tests.answers import error_of

NESTED = {"limits": {"memory_mb": ["Must be at most 4096."]}, "cmd": {"3": ["Must be a string."]}}


@pytest.mark.parametrize(
    ("exception", "status", "code"),
    [
        (errors.InvalidRequest("x"), 400, "invalid"),
        (errors.InvalidReference("x"), 400, "invalid_image"),
        (errors.InputNotFound("x"), 400, "file_not_found"),
        (errors.InputRefused("x"), 400, "file_refused"),
        (errors.NetworkUnavailable("x"), 400, "network_unavailable"),
        (errors.ServiceBusy("x"), 503, "busy"),
        (errors.QueueFull("x"), 503, "queue_full"),
        (errors.NoWorker("x"), 503, "no_worker"),
        (errors.StillQueued("x"), 503, "queue_timeout"),
        (errors.TooManyFailures(retry_after=7), 429, "too_many_failures"),
        (errors.WallClockExceeded("x"), 408, "timed_out"),
        (errors.OutputLimitExceeded("x"), 507, "output_limit"),
        (errors.InfraError("x"), 500, "infra_error"),
        (errors.InfraError("x", code="pull_failed"), 500, "pull_failed"),
        (errors.BoxerError("x"), 500, "error"),
        (files.BadPath("x"), 400, "invalid_path"),
        (files.FileMissing(paths=["a"]), 404, "not_found"),
        (files.TooLarge("x"), 413, "too_large"),
        (files.BlobGone("x"), 503, "contents_gone"),
        (files.StorageFailed("x"), 503, "storage_failed"),
        (exceptions.ParseError("x"), 400, "parse_error"),
        (exceptions.NotAuthenticated(), 401, "not_authenticated"),
        (exceptions.PermissionDenied(), 403, "permission_denied"),
        (exceptions.NotFound(), 404, "not_found"),
        (exceptions.NotAcceptable(), 406, "not_acceptable"),
        (exceptions.UnsupportedMediaType("text/plain"), 415, "unsupported_media_type"),
        (exceptions.Throttled(wait=7), 429, "throttled"),
        (exceptions.APIException(), 500, "error"),
        (Http404("secret model"), 404, "not_found"),
        (PermissionDenied("x"), 403, "permission_denied"),
        (RequestDataTooBig(), 413, "too_large"),
        (SuspiciousOperation("secret"), 400, "bad_request"),
        (OperationalError("secret host"), 503, "unavailable"),
        (InterfaceError("secret host"), 503, "unavailable"),
        (PoolTimeout("secret host"), 503, "unavailable"),
        (RuntimeError("secret"), 500, "internal_error"),
    ],
)
def test_each_error_has_its_status_and_code(exception: Exception, status: int, code: str) -> None:
    response = http.exception_handler(exception, {})
    error_of(response, status, code)
    assert b"secret" not in response.content


def test_a_validation_error_names_the_first_bad_field_and_lists_all() -> None:
    response = http.exception_handler(exceptions.ValidationError(NESTED), {})
    body = error_of(response, 400, "invalid")
    assert body["error"] == "limits.memory_mb: Must be at most 4096."
    assert body["fields"] == {
        "limits.memory_mb": ["Must be at most 4096."],
        "cmd.3": ["Must be a string."],
    }


def test_a_validation_error_of_no_field_has_no_fields() -> None:
    error = exceptions.ValidationError({"non_field_errors": ["Must be an object."]})
    body = error_of(http.exception_handler(error, {}), 400, "invalid")
    assert body == {"error": "Must be an object.", "code": "invalid"}


def test_an_error_tells_its_execution_and_what_was_printed() -> None:
    error = errors.WallClockExceeded(
        "wall clock limit of 2 s exceeded", exec_id="boxer-1", details={"stdout": "", "stderr": "e"}
    )
    body = error_of(http.exception_handler(error, {}), 408, "timed_out")
    assert body["exec_id"] == "boxer-1"
    assert (body["stdout"], body["stderr"]) == ("", "e")


def test_busy_says_when_to_try_again() -> None:
    response = http.exception_handler(errors.ServiceBusy("x", retry_after=17), {})
    assert response["Retry-After"] == "17"


def test_lone_surrogates_and_markup_in_a_message_stay_json() -> None:
    response = http.exception_handler(errors.InvalidRequest("\ud800 <script>\n\0"), {})
    assert error_of(response, 400)["error"] == "\ud800 <script>\n\0"


def test_an_unforeseen_error_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR, "boxer_site.errors"):
        http.exception_handler(RuntimeError("what really happened"), {})
    assert "what really happened" in caplog.text


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("", False),
        ("*/*", False),
        ("text/*", False),
        ("application/json", False),
        ("text/html-like", False),
        ("application/xhtml+xml", False),
        ("text/html", True),
        ("TEXT/HTML;q=0.1", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
    ],
)
def test_html_is_for_who_asks_for_it_by_name(accept: str, html: bool) -> None:
    request = RequestFactory().get("/nope", headers={"Accept": accept})
    response = http.page_not_found(request, Http404())
    assert response["Content-Type"].startswith("text/html") is html
    if html:
        assert b"<h1>404 Not found</h1>" in response.content
    else:
        error_of(response, 404, "not_found")


@pytest.mark.parametrize(
    "unknown",
    [
        "/nope",
        "/run/",
        "/healthz/",
        "/readyz/",
        "/run//",
        "/run%00",
        "/RUN",
        "/static/../manage.py",
        "/static/nope.js",
        "/%ff%fe",
        "/" + "a" * 5000,
    ],
)
@pytest.mark.django_db
def test_an_unknown_route_is_404_in_json(client: Client, unknown: str) -> None:
    error_of(client.get(unknown), 404, "not_found")
    error_of(client.post(unknown, b"{", content_type="application/json"), 404, "not_found")


@pytest.mark.django_db
def test_a_browser_sees_a_page(client: Client) -> None:
    response = client.get("/<script>alert(1)</script>", headers={"Accept": "text/html"})
    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")
    assert b"<script>" not in response.content


@override_settings(ALLOWED_HOSTS=["boxer.example", "127.0.0.1"])
@pytest.mark.parametrize(
    "path", ["/nope", "/healthz", "/openapi.json", "/swagger", "/files?path=a"]
)
def test_a_name_that_was_made_to_mean_this_host_is_refused(client: Client, path: str) -> None:
    response = client.get(path, headers={"Host": "evil.example"})
    assert (response.status_code, response.json()["code"]) == (400, "unknown_host")
    assert "evil.example" in response.json()["error"]
    known = client.get("/healthz", headers={"Host": "127.0.0.1:8080"})
    assert known.status_code == 200


@pytest.mark.parametrize("path", ["/run", "/files"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://testserver:81"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_may_not_post(
    client: Client, path: str, headers: dict[str, str]
) -> None:
    response = client.post(path, {"path": "a"}, headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "other_site")


@pytest.mark.django_db
def test_our_own_pages_may_post(client: Client, anonymous: User) -> None:
    headers = {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}
    response = client.post("/run", {}, content_type="application/json", headers=headers)
    assert response.json()["code"] == "invalid"


def broken(_request: HttpRequest) -> HttpResponse:
    raise RuntimeError("the secret of the view")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; x*=bogus''%ff"},
        {"Content-Type": b"text/plain; a*=\xff"},
        {"Content-Type": "application/json; " + "a=b;" * 5000},
        {"Content-Type": "application/json; charset=bogus"},
        {"Accept": "application/json; x*=bogus''%ff"},
        {"Accept": b"\xff\xfe"},
        {"Accept": "text/html; " + "a=b;" * 5000},
        {"Accept": ",;,;=,*/*;q=q"},
        {"Host": "a b"},
        {"Host": "[::1"},
        {"Cookie": b"sessionid=\xff\x01; =;"},
        {"Content-Length": "x"},
        {"Content-Length": "-1"},
        {"Range": "bytes=9-1"},
        {"X-Forwarded-For": b"\x80" * 100},
    ],
)
@pytest.mark.django_db(transaction=True)
async def test_no_header_makes_a_500(
    anonymous: User, headers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with a pool: the thread of a request ends with it, and its connection must not stay open.
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    transport = httpx.ASGITransport(cast(Any, application))
    async with httpx.AsyncClient(transport=transport, base_url="http://boxer") as client:
        for method, route in [("POST", "/run"), ("POST", "/files"), ("GET", "/healthz")]:
            response = await client.request(method, route, content=b"{}", headers=headers)
            assert response.status_code < 500
            if response.status_code >= 300:
                assert set(response.json()) <= {"error", "code", "fields"}


urlpatterns = [path("broken", broken)]
handler500 = "boxer_site.errors.server_error"


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
def test_a_broken_view_is_500_without_a_traceback(accept: str) -> None:
    client = Client(raise_request_exception=False)
    response = client.get("/broken", headers={"Accept": accept})
    assert response.status_code == 500
    assert b"secret" not in response.content
    if accept == "*/*":
        error_of(response, 500, "internal_error")


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options", "trace"])
@pytest.mark.parametrize("route", ["/run", "/healthz", "/readyz"])
async def test_a_method_that_a_route_has_not_is_405(
    async_client: AsyncClient, route: str, method: str
) -> None:
    error_of(await getattr(async_client, method)(route), 405, "method_not_allowed")
