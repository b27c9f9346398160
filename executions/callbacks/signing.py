"""What callbacks are signed with: a secret for each user, sealed at rest."""

import base64
import hashlib
import hmac
import secrets
from functools import cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from executions import audit
from executions.actor import Actor
from executions.callbacks.models import CallbackSecret
from executions.sealed.services import SealBroken

_PURPOSE = b"boxer: secrets of callbacks, 1"
_BYTES = 32


def secret_of(*, user_id: int) -> str:
    """The user's secret, made when there is none yet. Raises SealBroken."""
    row = CallbackSecret.objects.filter(pk=user_id).first()
    if row is None:
        # Of two that make it at once the first one counts.
        made = CallbackSecret(user_id=user_id, data=_sealed(user_id), created_at=timezone.now())
        CallbackSecret.objects.bulk_create([made], ignore_conflicts=True)
        row = CallbackSecret.objects.get(pk=user_id)
    return _opened(user_id, bytes(row.data))


@transaction.atomic
def rotate(*, actor: Actor) -> str:
    """Another secret, with which every try from now on is signed."""
    user_id = actor.user_id
    CallbackSecret.objects.update_or_create(
        pk=user_id, defaults={"data": _sealed(user_id), "created_at": timezone.now()}
    )
    audit.record(actor, audit.Verb.CALLBACK_SECRET_ROTATED, "auth.user", user_id)
    return secret_of(user_id=user_id)


def signature(secret: str, timestamp: int, body: str) -> str:
    """`v1=` and the HMAC-SHA256 in hexadecimal of the timestamp (Unix seconds), a dot, the body."""
    signed = f"{timestamp}.{body}".encode()
    return f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


def _sealed(user_id: int) -> bytes:
    # The number is in it, so that a row can't be moved to another user.
    return _fernet().encrypt(f"{user_id}:{secrets.token_urlsafe(_BYTES)}".encode())


def _opened(user_id: int, data: bytes) -> str:
    try:
        sealed_for, _, secret = _fernet().decrypt(data).decode().partition(":")
    except InvalidToken:
        raise SealBroken(
            "the secret of callbacks can't be opened: is BOXER_SECRET_KEY the same?"
        ) from None
    if sealed_for != str(user_id):
        raise SealBroken("the secret of callbacks was sealed for another user")
    return secret


@cache
def _fernet() -> Fernet:
    """Its key is of BOXER_SECRET_KEY and good for nothing else (RFC 5869)."""
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE)
    return Fernet(base64.urlsafe_b64encode(derived.derive(settings.SECRET_KEY.encode())))
