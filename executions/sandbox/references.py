"""Image references: what a user writes, made whole as Docker does it, or refused with a reason.

The grammar is that of github.com/distribution/reference: [host[:port]/]path[:tag][@digest].
"""

import re
from dataclasses import dataclass

DEFAULT_HOST = "docker.io"
LOCAL_HOST = "boxer.local"
"""Images under this host come from `images import`; no registry is ever asked for them."""

NAME_LIMIT = 255
TAG_LIMIT = 128
REFERENCE_LIMIT = 512

TRANSPORTS = (
    "atomic:",
    "containers-storage:",
    "dir:",
    "docker-archive:",
    "docker-daemon:",
    "oci:",
    "oci-archive:",
    "ostree:",
    "sif:",
    "tarball:",
)
"""What skopeo would take for something other than a registry."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:]+\])(?::(?P<port>[0-9]{{1,5}}))?")
COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
IDENTIFIER = re.compile(r"[0-9a-f]{64}")


class BadReference(ValueError):
    """Not the name of an image that a registry could serve; the message says why."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A whole reference. At least one of tag and digest is there; the digest wins."""

    host: str
    path: str
    tag: str
    digest: str

    @property
    def name(self) -> str:
        return f"{self.host}/{self.path}"

    @property
    def local(self) -> bool:
        return self.host == LOCAL_HOST

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def normalise(reference: str) -> str:
    """`python` ► `docker.io/library/python:latest`. Raises BadReference."""
    return str(parse(reference))


def parse(reference: str) -> Reference:
    """Raises BadReference, whose message names the reference and what is wrong with it."""
    try:
        _refuse_foreign(reference)
        rest, tag, digest = _split(reference)
        host, path = _host_and_path(rest)
        _check_name(host, path)
        _check_tag_and_digest(tag, digest)
    except _Wrong as wrong:
        shown = reference if len(reference) <= 100 else reference[:100] + "…"
        raise BadReference(f"{shown!r} is not an image reference: {wrong}") from None
    if tag is None and digest is None:
        tag = "latest"
    return Reference(host, path, tag or "", digest or "")


class _Wrong(Exception):
    """What is wrong, without the reference."""


def _refuse_foreign(reference: str) -> None:
    if not reference:
        raise _Wrong("it is empty")
    if len(reference) > REFERENCE_LIMIT:
        raise _Wrong(f"it is longer than {REFERENCE_LIMIT} characters")
    if any(character.isspace() for character in reference):
        raise _Wrong("it contains white space")
    if not reference.isascii():
        raise _Wrong("it contains a character that is not ASCII")
    if not reference.isprintable():
        raise _Wrong("it contains a control character")
    if reference.startswith("-"):
        raise _Wrong("it starts with '-'")
    if "://" in reference:
        raise _Wrong("it is a URL; leave out what stands before '://' and the '://'")
    for transport in TRANSPORTS:
        if reference.lower().startswith(transport):
            raise _Wrong(f"only images from registries can be run, not {transport}")


def _split(reference: str) -> tuple[str, str | None, str | None]:
    """Name, tag and digest; a colon before the last slash belongs to a port."""
    name, at, digest = reference.partition("@")
    last = name.rpartition("/")[2]
    if ":" not in last:
        return name, None, digest if at else None
    name, _, tag = name.rpartition(":")
    return name, tag, digest if at else None


def _host_and_path(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and (set(".:[") & set(first) or first.lower() == "localhost"):
        host, path = first.lower(), rest
    else:
        host, path = DEFAULT_HOST, name
    if host in ("docker.io", "index.docker.io"):
        host = DEFAULT_HOST
        if "/" not in path:
            if IDENTIFIER.fullmatch(path):
                raise _Wrong("it is the ID of an image, not a name")
            path = f"library/{path}"
    return host, path


def _check_name(host: str, path: str) -> None:
    match = HOST.fullmatch(host)
    if match is None:
        raise _Wrong(f"{host[:100]!r} is not the host of a registry")
    port = match["port"]
    if port is not None and not 0 < int(port) < 65536:
        raise _Wrong(f"{port} is not a port")
    for component in path.removeprefix("library/").split("/"):
        if COMPONENT.fullmatch(component):
            continue
        if not component:
            raise _Wrong("a part of its name is empty")
        if component.lower() != component:
            raise _Wrong("its name must be in lower case")
        raise _Wrong(f"{component[:100]!r} can't be a part of its name")
    if len(host) + 1 + len(path) > NAME_LIMIT:
        raise _Wrong(f"its name is longer than {NAME_LIMIT} characters")


def _check_tag_and_digest(tag: str | None, digest: str | None) -> None:
    if tag is not None:
        if len(tag) > TAG_LIMIT:
            raise _Wrong(f"its tag is longer than {TAG_LIMIT} characters")
        if not TAG.fullmatch(tag):
            raise _Wrong(f"{tag!r} can't be a tag")
    if digest is not None and not DIGEST.fullmatch(digest):
        raise _Wrong("after '@' must stand sha256: and 64 lower case hexadecimal digits")
