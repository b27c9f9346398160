"""Untrusted path ► safe relative path."""

import unicodedata

from filestore.errors import BadPath

MAX_BYTES = 4096
MAX_COMPONENT_BYTES = 255
RESERVED = "output"
"""Outputs of runs stand below it; whoever uploads can't write there, whoever reads can."""


def clean_path(raw: str) -> str:
    """`raw` without leading, trailing and doubled slashes and without `.` components.

    Raises BadPath, which says what is wrong, for everything that isn't safe then: the answer is
    never empty, never absolute, holds no `..` component and no control character, and is valid
    UTF-8 of at most 4096 bytes and 255 per component. Backslashes are ordinary characters.
    Cleaning the answer again changes nothing.
    """
    if len(_encode(raw)) > MAX_BYTES:
        raise BadPath(f"path: longer than {MAX_BYTES} bytes")
    _refuse_characters(raw)
    components = [part for part in raw.split("/") if part not in ("", ".")]
    if not components:
        raise BadPath("path: empty" if not raw else f"path: names no file: {raw!r}")
    for part in components:
        _refuse_component(part)
    return "/".join(components)


def clean_upload_path(raw: str) -> str:
    """As clean_path; also refuses what lies in the reserved `output/`."""
    path = clean_path(raw)
    if path.split("/", 1)[0] == RESERVED:
        raise BadPath(f"path: {RESERVED}/ is reserved for what runs leave: {path!r}")
    return path


def _encode(raw: str) -> bytes:
    try:
        return raw.encode()
    except UnicodeEncodeError:
        raise BadPath(f"path: not valid UTF-8: {raw[:100]!r}") from None


def _refuse_characters(raw: str) -> None:
    for character in raw:
        if unicodedata.category(character) == "Cc":
            raise BadPath(f"path: holds the control character U+{ord(character):04X}")
        if character == "\N{REPLACEMENT CHARACTER}":
            # What decoders put where bytes weren't UTF-8: the name that was meant is lost.
            raise BadPath("path: holds bytes that are not valid UTF-8 (U+FFFD)")


def _refuse_component(part: str) -> None:
    if part == "..":
        raise BadPath("path: must not hold a '..' component")
    if len(part.encode()) > MAX_COMPONENT_BYTES:
        raise BadPath(
            f"path: a component is longer than {MAX_COMPONENT_BYTES} bytes: {part[:40]!r}…"
        )
