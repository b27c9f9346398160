"""Secrets in a run's environment: taken out of what is stored, and given to the program alone."""

import base64
import fnmatch
import json
import re
from collections.abc import Sequence
from functools import cache

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from executions.errors import InfraError
from executions.sealed.models import SealedEnvironment

MASK = "***"
_PURPOSE = b"boxer: environment of runs, 1"


class SealBroken(InfraError):
    """What was sealed can't be opened: hosts of one database have different keys, or it was
    changed."""

    code = "seal_broken"


def is_secret(assignment: str) -> bool:
    """Whether the name in `NAME=VALUE` looks like a secret's (BOXER_SECRET_ENV_PATTERN)."""
    name = assignment.partition("=")[0]
    return _pattern(settings.BOXER_SECRET_ENV_PATTERN).fullmatch(name.upper()) is not None


def masked(env: Sequence[str]) -> list[str]:
    """`env` as it may be stored and shown: the values of secrets are gone."""
    return [_mask(one) if is_secret(one) else one for one in env]


def _mask(assignment: str) -> str:
    return f"{assignment.partition('=')[0]}={MASK}"


def is_masked(env: Sequence[str]) -> bool:
    """Whether something in a stored `env` may stand for a secret."""
    return any(one.endswith(f"={MASK}") for one in env)


def seal(*, execution_id: int, exec_id: str, env: Sequence[str]) -> None:
    """Keep the secrets of `env`, if it has any, until the run ends: one more statement then."""
    secrets = [one for one in env if is_secret(one)]
    if secrets:
        # The id is in it, so that a row can't be moved to another's run.
        text = json.dumps([exec_id, *secrets]).encode()
        SealedEnvironment.objects.create(execution_id=execution_id, data=_fernet().encrypt(text))


def opened(*, execution_id: int, exec_id: str, env: Sequence[str]) -> list[str]:
    """`env` as the program is to see it. Raises SealBroken. No statement where nothing is masked.

    A mask that stands for nothing is what the client itself had sent.
    """
    if not is_masked(env):
        return list(env)
    row = SealedEnvironment.objects.filter(pk=execution_id).first()
    if row is None:
        return list(env)
    secrets = _open(bytes(row.data), exec_id)[::-1]
    return [secrets.pop() if secrets and one == _mask(secrets[-1]) else one for one in env]


def _open(data: bytes, exec_id: str) -> list[str]:
    try:
        sealed_for, *secrets = json.loads(_fernet().decrypt(data))
    except (InvalidToken, ValueError):
        raise SealBroken(
            "the run's secrets can't be opened: is BOXER_SECRET_KEY the same?"
        ) from None
    if sealed_for != exec_id:
        raise SealBroken("the run's secrets were sealed for another run")
    return [str(secret) for secret in secrets]


def sealed_text(text: str) -> bytes:
    """What is to wait in the database and may hold secrets."""
    return _fernet().encrypt(text.encode())


def opened_text(data: bytes) -> str:
    """Raises SealBroken."""
    try:
        return _fernet().decrypt(data).decode()
    except InvalidToken:
        raise SealBroken("what waits can't be opened: is BOXER_SECRET_KEY the same?") from None


@cache
def _pattern(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(glob.upper()) for glob in globs))


@cache
def _fernet() -> Fernet:
    """Its key is of BOXER_SECRET_KEY and good for nothing else (RFC 5869)."""
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE)
    return Fernet(base64.urlsafe_b64encode(derived.derive(settings.SECRET_KEY.encode())))
