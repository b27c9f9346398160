"""Who a request comes from: a token, a browser's session, else `anonymous` where that is let in."""

import binascii
from base64 import b64decode
from copy import copy
from datetime import timedelta
from functools import cache
from hmac import compare_digest

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, QueryDict
from django.utils import timezone
from knox.crypto import hash_token
from knox.settings import CONSTANTS
from rest_framework.authentication import (
    BaseAuthentication,
    CSRFCheck,
    SessionAuthentication,
    get_authorization_header,
)
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request

from executions import audit
from executions.accounts.models import Token
from executions.accounts.throttling import count_bad_token

ANONYMOUS = "anonymous"
CHALLENGE = 'Bearer realm="boxer"'
"""Without Basic, which would make browsers ask for a password that isn't one."""
USE_NOTED_EVERY = timedelta(minutes=1)


@cache
def anonymous_user() -> AbstractBaseUser:
    """The built-in user (made by a migration); read once per process."""
    return get_user_model().objects.get_by_natural_key(ANONYMOUS)


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer TOKEN`, or Basic with it as the password and any name.

    One query; a second one once a minute, to note the use. A wrong token costs three more.
    """

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, Token] | None:
        header = get_authorization_header(request)
        if not header:
            return None
        secret = _secret_of(header)
        token = _find(secret)
        if token is None:
            address = str(request.META.get("REMOTE_ADDR", ""))
            audit.record_failure(audit.Verb.TOKEN_FAILED, username="", address=address)
            count_bad_token(address=address, token_key=_key_of(secret))
            raise AuthenticationFailed("There is no such token, or it has ended.", code="bad_token")
        _note_use(token)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002
        return CHALLENGE


def _secret_of(header: bytes) -> str:
    """Raises AuthenticationFailed for what isn't of either form."""
    scheme, _, given = header.strip().partition(b" ")
    try:
        if scheme.lower() == b"bearer":
            return given.strip().decode("ascii")
        if scheme.lower() == b"basic":
            pair = b64decode(given.strip(), validate=True).decode()
            return pair.partition(":")[2]
    except (UnicodeDecodeError, binascii.Error):
        pass
    raise AuthenticationFailed(
        "Authorization: must be Bearer or Basic, with a token.", code="bad_token"
    )


def _key_of(secret: str) -> str:
    return secret[: CONSTANTS.TOKEN_KEY_LENGTH]


def _find(secret: str) -> Token | None:
    if not secret.isascii() or "\0" in secret:
        return None
    digest = hash_token(secret)
    for token in Token.objects.filter(token_key=_key_of(secret)).select_related("user"):
        if compare_digest(digest, token.digest):
            return token if token.user.is_active and not token.expired else None
    return None


def _note_use(token: Token) -> None:
    now = timezone.now()
    before = now - USE_NOTED_EVERY
    if token.last_used_at is None or token.last_used_at < before:
        unnoted = Q(last_used_at=None) | Q(last_used_at__lt=before)
        Token.objects.filter(unnoted, pk=token.pk).update(last_used_at=now)


class BrowserSession(SessionAuthentication):
    """A login of the pages, with CSRF: the token of it comes in the header X-CSRFToken."""

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, None] | None:
        page_request = request._request  # noqa: SLF001 (as DRF's own does)
        # Looking at the session would be a query, and makes the answer depend on the cookie.
        if settings.SESSION_COOKIE_NAME not in page_request.COOKIES:
            return None
        user = page_request.user
        if not user.is_authenticated:
            # Going on as anonymous would do in public what somebody meant to do as themselves.
            raise AuthenticationFailed("The session has ended; log in again.", code="session_ended")
        self._check_csrf(page_request)
        return user, None

    def _check_csrf(self, request: HttpRequest) -> None:
        # Django looks for the token among a form's fields first, and would read an upload for it.
        without_body = copy(request)
        without_body.POST = QueryDict()
        check = CSRFCheck(_nothing)
        check.process_request(without_body)
        if check.process_view(without_body, _nothing, (), {}):
            raise PermissionDenied("X-CSRFToken: missing or not the cookie's.", code="csrf_failed")

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002
        return CHALLENGE


def _nothing(_request: HttpRequest) -> HttpResponse:
    """What a check needs to stand before, and never calls."""
    return HttpResponse()


class AnonymousAccess(BaseAuthentication):
    """Comes last: wrong credentials have been refused before."""

    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, None] | None:  # noqa: ARG002
        if not settings.BOXER_ANONYMOUS:
            return None
        # Permissions are kept on the object that was asked: each request has its own.
        return copy(anonymous_user()), None

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002
        return CHALLENGE
