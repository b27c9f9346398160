"""Where Boxer is and who asks: BOXER_URL and BOXER_TOKEN, else what `boxer login` wrote."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from secrets import token_hex
from urllib.parse import unquote, urlsplit, urlunsplit

from cli.errors import ClientError

DEFAULT_URL = "http://127.0.0.1:8080"
VARIABLES = ("BOXER_URL", "BOXER_TOKEN")


@dataclass(frozen=True, slots=True)
class Place:
    """`url` without a slash at its end and without credentials; an empty token asks as nobody."""

    url: str = DEFAULT_URL
    token: str = ""

    @property
    def is_readable_on_the_way(self) -> bool:
        parts = urlsplit(self.url)
        return bool(self.token) and parts.scheme == "http" and not _is_loopback(parts.hostname)


def config_file(env: Mapping[str, str] = os.environ) -> Path:
    base = env.get("XDG_CONFIG_HOME", "")
    # The XDG specification has relative ones ignored.
    directory = Path(base) if base.startswith("/") else Path(env.get("HOME", "~")) / ".config"
    return directory.expanduser() / "boxer" / "config.toml"


def place(env: Mapping[str, str] = os.environ) -> Place:
    """Raises ClientError. A token of the file goes to the URL of the file alone."""
    stored = _stored(config_file(env))
    found = parse(env["BOXER_URL"], "BOXER_URL") if env.get("BOXER_URL") else stored
    if env.get("BOXER_TOKEN"):
        return Place(found.url, checked_token(env["BOXER_TOKEN"], "BOXER_TOKEN"))
    if not found.token and found.url == stored.url:
        return stored
    return found


def parse(url: str, name: str) -> Place:
    """Also of a URL with credentials, as http://token:SECRET@host; `name` is told in errors."""
    try:
        parts = urlsplit(url.strip())
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment:
        raise ClientError(f"{name}: must be a URL like {DEFAULT_URL}")
    host = parts.netloc.rpartition("@")[2]
    token = checked_token(unquote(parts.password or ""), name)
    return Place(urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")), token)


def checked_token(token: str, name: str) -> str:
    """Raises ClientError for what no header could carry, without showing it."""
    token = token.strip()
    if not all("!" <= char <= "~" for char in token):
        raise ClientError(f"{name}: a token has letters, digits and signs, no spaces")
    return token


def store(found: Place, file: Path) -> None:
    """Readable for its owner alone, at no moment half written. Raises ClientError."""
    # What a URL and a token consist of needs no escapes in TOML beyond those two.
    lines = [f"{name} = {_quoted(value)}" for name, value in _items(found)]
    beside = file.with_name(f".{file.name}.{token_hex(4)}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as out:  # noqa: PTH123 (a descriptor)
                out.write("\n".join([*lines, ""]))
            beside.replace(file)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ClientError(f"{file}: {error.strerror}") from None


def _items(found: Place) -> list[tuple[str, str]]:
    return [("url", found.url), *([("token", found.token)] if found.token else [])]


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _stored(file: Path) -> Place:
    try:
        values = tomllib.loads(file.read_text())
    except FileNotFoundError:
        return Place()
    except OSError as error:
        raise ClientError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise ClientError(f"{file}: {error}") from None
    unknown = set(values) - {"url", "token"}
    if unknown or not all(isinstance(value, str) for value in values.values()):
        raise ClientError(f"{file}: must have url and token, as strings, and nothing else")
    found = parse(values.get("url", DEFAULT_URL), f"{file}: url")
    return Place(found.url, checked_token(values.get("token", found.token), f"{file}: token"))


def _is_loopback(host: str | None) -> bool:
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
