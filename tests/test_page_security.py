"""What browsers are told of every page: nothing inline; behind https, secure cookies and HSTS."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from django.test import Client

from tests.environment import HOME, new_home
from tests.stack import MANAGE, Stack

ROOT = Path(__file__).resolve().parent.parent
INLINE = re.compile(
    r"<script(?![^>]*\bsrc=)(?![^>]*type=\"application/json\")|<style|\son\w+=|\sstyle=|javascript:",
    re.IGNORECASE,
)


def directives(policy: str) -> dict[str, set[str]]:
    parts = (part.split() for part in policy.split(";"))
    return {words[0]: set(words[1:]) for words in parts}


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/swagger", "/redoc", "/nothing-here", "/healthz", "/run"])
def test_every_answer_says_that_nothing_inline_is_run(client: Client, path: str) -> None:
    response = client.get(path, headers={"Accept": "text/html"})
    policy = directives(response["Content-Security-Policy"])
    assert policy["default-src"] == {"'none'"}
    assert policy["script-src"] == {"'self'"}
    assert policy["frame-ancestors"] == policy["base-uri"] == {"'none'"}
    if path != "/redoc":  # it makes its style sheet in the browser
        assert "unsafe" not in response["Content-Security-Policy"]
    assert response["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("path", ["/swagger", "/redoc", "/nothing-here"])
def test_no_page_has_anything_inline(client: Client, path: str) -> None:
    html = client.get(path, headers={"Accept": "text/html"}).content.decode()
    assert "<link" in html
    assert INLINE.search(html) is None
    for asset in re.findall(r"""(?:src|href)="(/[^"]*)\"""", html):
        assert client.get(asset).status_code == 200, asset


def test_the_search_for_inline_things_finds_them() -> None:
    for html in (
        "<script>x</script>",
        '<p style="x">',
        '<a onclick="x">',
        "<style>",
        "javascript:",
    ):
        assert INLINE.search(html) is not None
    assert INLINE.search('<script src="/x.js"></script>') is None


def test_swagger_starts_with_a_script_of_its_own(client: Client) -> None:
    response = client.get("/swagger?script")
    assert response["Content-Type"].startswith("application/javascript")
    assert "SwaggerUIBundle(" in response.content.decode()


# ── Behind https ─────────────────────────────────────────────────────────────────────────────────

TAGS = [
    f"--tag={tag}"
    for tag in (
        "security",
        "models",
        "urls",
        "admin",
        "templates",
        "staticfiles",
        "caches",
        "files",
    )
]
HTTPS = {
    "BOXER_HTTPS": "1",
    "BOXER_ALLOWED_HOSTS": "boxer.example 127.0.0.1",
    "BOXER_TRUSTED_PROXIES": "127.0.0.1",
}


def check_deploy(**given: str) -> subprocess.CompletedProcess[str]:
    """Everything but what looks at the host (tests/test_checks.py)."""
    return subprocess.run(
        [sys.executable, str(MANAGE), "check", "--deploy", "--fail-level=WARNING", *TAGS],
        env={**os.environ, "BOXER_HOME": str(HOME), **given},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_check_deploy_is_clean_with_the_settings_of_production() -> None:
    done = check_deploy(**HTTPS)
    assert done.returncode == 0, done.stderr


def test_check_deploy_does_look_at_something() -> None:
    done = check_deploy(**HTTPS, BOXER_SECRET_KEY="short")
    assert done.returncode != 0
    assert "security.W009" in done.stderr


@contextmanager
def behind_https(stack: Stack) -> Iterator[str]:
    """A web process of its own, set up for https, on the stack's database; its URL."""
    home = new_home()
    socket = stack.home / "postgres" / "socket"
    web = Stack(
        "--listen",
        "127.0.0.1:0",
        home=home,
        command="web",
        env={
            **HTTPS,
            "BOXER_SECRET_KEY_FILE": str(stack.home / "secret_key"),
            "DATABASE_URL": f"postgresql:///boxer?host={socket}&user=postgres",
        },
        ready=re.compile(r"^Boxer serves at (http://\S+)$", re.MULTILINE),
    )
    web.start()
    try:
        yield web.base_url
    finally:
        web.stop()


def test_behind_https_everything_keeps_to_it(stack: Stack) -> None:
    with behind_https(stack) as url, httpx.Client(base_url=url) as http:
        told = {"X-Forwarded-Proto": "https"}
        plain = http.get("/openapi.json")
        assert (plain.status_code, plain.headers["Location"][:8]) == (301, "https://")
        assert http.get("/healthz").status_code == 200, "the host's own probes ask directly"
        secure = http.get("/openapi.json", headers=told)
        assert secure.status_code == 200
        assert secure.headers["Strict-Transport-Security"] == "max-age=31536000"


@pytest.mark.django_db
def test_without_https_no_browser_is_told_to_keep_to_it(client: Client) -> None:
    assert "Strict-Transport-Security" not in client.get("/healthz")


COOKIES = """
import django; django.setup()
from django.conf import settings as s
print(s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SESSION_COOKIE_HTTPONLY,
      s.SESSION_COOKIE_SAMESITE, s.CSRF_COOKIE_SAMESITE)
"""


@pytest.mark.parametrize(("https", "secure"), [("1", "True True"), ("0", "False False")])
def test_cookies_are_for_https_alone_where_there_is_https(https: str, secure: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COOKIES],
        env={
            **os.environ,
            "BOXER_HOME": str(HOME),
            "BOXER_HTTPS": https,
            "DJANGO_SETTINGS_MODULE": "boxer_site.settings",
        },
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout == f"{secure} True Lax Lax\n", done.stderr
