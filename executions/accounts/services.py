"""Tokens made and revoked, and the first administrator."""

import secrets
from datetime import datetime, timedelta

from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils import timezone
from knox.models import get_digest_token
from knox.settings import CONSTANTS

from executions.accounts.models import Token
from executions.errors import InvalidRequest

DEFAULT_DAYS = 90
MAX_DAYS = 3650
MAX_TOKENS = 100
FIRST_ADMIN = "admin"


def create_token(
    *, user_id: int, name: str, days: int | None = None, not_after: datetime | None = None
) -> tuple[Token, str]:
    """A new token and its secret, which is in nobody's hands but the caller's.

    `not_after` is when the token ends that asks for this one: none outlives its maker. Raises
    InvalidRequest for a bad name, a longer life, or one token too many.
    """
    now = timezone.now()
    if not name.strip() or len(name) > 100 or not name.isprintable():
        raise _invalid("name", "must be 1 to 100 printable characters")
    if days is not None and not 1 <= days <= MAX_DAYS:
        raise _invalid("days", f"must be from 1 to {MAX_DAYS}")
    expiry = now + timedelta(days=days or DEFAULT_DAYS)
    if not_after is not None and expiry > not_after:
        if days is not None:
            raise _invalid("days", f"the token that asks for it ends at {not_after.isoformat()}")
        expiry = not_after
    with transaction.atomic():
        # The lock lets no two of a user's requests count at once.
        get_user_model().objects.select_for_update().get(pk=user_id)
        if Token.objects.filter(user_id=user_id).count() >= MAX_TOKENS:
            raise _invalid("name", f"there are {MAX_TOKENS} tokens; revoke one first")
        digest, secret = get_digest_token()  # type: ignore[no-untyped-call]
        token = Token.objects.create(
            user_id=user_id,
            name=name.strip(),
            digest=digest,
            token_key=secret[: CONSTANTS.TOKEN_KEY_LENGTH],
            expiry=expiry,
        )
    return token, secret


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {message}", fields={field: [message]})


@transaction.atomic
def revoke_token(*, token_id: int, owner_id: int | None = None) -> bool:
    """It opens nothing from now on; False when there is none (of that owner)."""
    tokens = Token.objects.filter(pk=token_id)
    if owner_id is not None:
        tokens = tokens.filter(user_id=owner_id)
    deleted, _ = tokens.delete()
    return bool(deleted)


def make_first_admin() -> str:
    """Where there is no superuser: make `admin`; its password, to be shown once. Else empty."""
    User = get_user_model()  # noqa: N806 (a class)
    if User.objects.filter(is_superuser=True).exists():
        return ""
    if User.objects.filter(username=FIRST_ADMIN).exists():
        return ""  # somebody's account: it isn't ours to promote
    password = secrets.token_urlsafe(15)
    User.objects.create_superuser(FIRST_ADMIN, password=password)
    return password
