"""Typed readers of environment variables and of the files they name; a bad value names itself."""

import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from executions.sandbox.references import BadReference, parse

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})


def bad(name: str, value: str, wanted: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{name}={value!r}: {wanted}")


def given(name: str) -> str:
    """The value of `name`, or what the file that `{name}_FILE` names holds; empty for neither.

    A secret in a file is seen by who may read it, one in the environment by whatever shows the
    environment of a process. Both at once is an error, since one of them would be ignored.
    """
    value = os.environ.get(name, "").strip()
    file = os.environ.get(f"{name}_FILE", "").strip()
    if not file:
        return value
    if value:
        raise ImproperlyConfigured(f"{name} and {name}_FILE: only one of them may be given")
    try:
        content = Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(f"{name}_FILE={file!r}: can't be read: {error}") from None
    if not content:
        raise ImproperlyConfigured(f"{name}_FILE={file!r}: the file is empty")
    return content


def text(name: str, default: str = "", *, choices: tuple[str, ...] = ()) -> str:
    value = given(name) or default
    if choices and value not in choices:
        raise bad(name, value, f"must be one of {', '.join(choices)}")
    return value


def boolean(name: str, default: bool) -> bool:
    value = given(name).lower()
    if not value:
        return default
    if value in TRUE:
        return True
    if value in FALSE:
        return False
    raise bad(name, value, "must be true or false")


N = TypeVar("N", int, float)


def _number(
    convert: Callable[[str], N], kind: str, name: str, default: N, minimum: N, maximum: N | None
) -> N:
    raw = given(name)
    if not raw:
        return default
    try:
        value = convert(raw)
    except ValueError:
        raise bad(name, raw, f"must be {kind}") from None
    if not value >= minimum or (maximum is not None and value > maximum):
        upper = "" if maximum is None else f" and at most {maximum}"
        raise bad(name, raw, f"must be at least {minimum}{upper}")
    return value


def integer(name: str, default: int, *, minimum: int = 1, maximum: int | None = None) -> int:
    return _number(int, "a whole number", name, default, minimum, maximum)


def decimal(name: str, default: float, *, minimum: float, maximum: float | None = None) -> float:
    return _number(float, "a number", name, default, minimum, maximum)


def words(name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    """A list separated by commas or white space."""
    value = given(name).replace(",", " ").split()
    return tuple(value) or default


def addresses(name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """A list of IP addresses."""
    values = words(name, default)
    for value in values:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise bad(name, value, "must be an IP address") from None
    return values


def networks(name: str) -> tuple[str, ...]:
    """A list of IPv4 networks in CIDR notation."""
    values = words(name)
    for value in values:
        try:
            ipaddress.IPv4Network(value)
        except ValueError as error:
            raise bad(name, value, f"must be IPv4 networks such as 10.1.2.0/24: {error}") from None
    return values


def network(name: str) -> str:
    """One IPv4 network with room for more than one address, or nothing."""
    values = networks(name)
    if len(values) > 1 or any(ipaddress.IPv4Network(one).prefixlen > 29 for one in values):
        raise bad(name, " ".join(values), "must be one IPv4 network of /29 or larger")
    return "".join(values)


def any_networks(name: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """A list of networks, IPv4 and IPv6; an address is a network of one."""
    found = []
    for value in words(name):
        try:
            found.append(ipaddress.ip_network(value))
        except ValueError as error:
            raise bad(name, value, f"must be a network like 10.1.0.0/16: {error}") from None
    return tuple(found)


def images(name: str) -> tuple[str, ...]:
    """A list of image references."""
    values = words(name)
    for value in values:
        try:
            parse(value)
        except BadReference as error:
            raise bad(name, value, str(error)) from None
    return values


def signing_key(name: str) -> str:
    """An Ed25519 private key in PEM, or nothing; the message never holds it."""
    value = given(name)
    if not value:
        return value
    # Imported where it is needed: most installations have none.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(value.encode(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ImproperlyConfigured(f"{name}: must be an Ed25519 private key in PEM (PKCS #8)")
    return value


def path(name: str, default: str) -> Path:
    value = Path(text(name, default)).expanduser()
    if not value.is_absolute():
        raise bad(name, str(value), "must be an absolute path")
    return value


def listen(name: str, default: str) -> tuple[str, int]:
    """`HOST:PORT`; an IPv6 host stands in brackets. Port 0 lets the system choose."""
    return parse_listen(text(name, default), name)


def parse_listen(value: str, name: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{value}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or value.count("/"):
        raise bad(name, value, "must be HOST:PORT, for example 127.0.0.1:8080")
    return host, port


def database(name: str) -> dict[str, Any] | None:
    """Django's settings for a PostgreSQL URL (or conninfo string), None when not given.

    Keys that libpq knows beyond user, password, host, port and dbname (sslmode, …) become OPTIONS.
    """
    value = text(name)
    if not value:
        return None
    scheme, separator, _ = value.partition("://")
    if separator and scheme not in {"postgres", "postgresql"}:
        raise ImproperlyConfigured(f"{name}: must be postgresql://…, not {scheme}://…")
    try:
        info = {key: str(item) for key, item in conninfo_to_dict(value).items()}
    except ProgrammingError as error:
        raise ImproperlyConfigured(f"{name}: not a PostgreSQL URL: {error}") from None
    if not info.get("dbname"):
        raise ImproperlyConfigured(f"{name}: the URL names no database")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": info.pop("dbname"),
        "USER": info.pop("user", ""),
        "PASSWORD": info.pop("password", ""),
        "HOST": info.pop("host", ""),
        "PORT": info.pop("port", ""),
        "OPTIONS": info,
    }
