"""The key that this installation signs receipts with."""

import hashlib
from functools import cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from django.conf import settings

_PURPOSE = b"boxer: signing key of receipts, 1"


@cache
def _private_key() -> Ed25519PrivateKey:
    """BOXER_RECEIPT_KEY, else one of BOXER_SECRET_KEY, good for nothing else (RFC 5869)."""
    if settings.BOXER_RECEIPT_KEY:
        key = load_pem_private_key(settings.BOXER_RECEIPT_KEY.encode(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError("BOXER_RECEIPT_KEY isn't an Ed25519 key")  # the start has looked at it
        return key
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE)
    return Ed25519PrivateKey.from_private_bytes(derived.derive(settings.SECRET_KEY.encode()))


def forget() -> None:
    """Read the settings again."""
    _private_key.cache_clear()


def public_key() -> Ed25519PublicKey:
    return _private_key().public_key()


def pem(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hexadecimal digits of the sha256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def load_public(text: str) -> Ed25519PublicKey:
    """Raises ValueError."""
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"no public key in PEM: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")  # noqa: TRY004 (of what a file holds)
    return key


def sign(message: bytes) -> bytes:
    return _private_key().sign(message)


def is_signed(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
