"""What a program printed as text that shows what there is, and does nothing."""

import unicodedata

from django.utils.html import format_html
from django.utils.safestring import SafeString

SHOWN_BYTES = 64 << 10


def visible(data: bytes) -> str:
    """Controls as their pictures, and marks that turn text around or hide it as their numbers."""
    return "".join(_visible(character) for character in data.decode("utf-8", "replace"))


def _visible(character: str) -> str:
    if character in "\n\t" or character.isprintable():
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if unicodedata.category(character) == "Zs":
        return character
    return f"\\u{{{code:x}}}"


def fold(title: str, data: bytes, size: int | None = None, link: str = "") -> SafeString:
    """Closed until somebody opens it; what is beyond 64 KiB is behind the link alone."""
    size = len(data) if size is None else size
    cut = format_html(" (the first {} here)", f"{SHOWN_BYTES:,}") if size > SHOWN_BYTES else ""
    raw = format_html('<p><a href="{}">{} as it is</a></p>', link, title) if link else ""
    return format_html(
        '<details class="boxer-fold"><summary>{}: {} bytes{}</summary><pre>{}</pre>{}</details>',
        title,
        f"{size:,}",
        cut,
        visible(data[:SHOWN_BYTES]),
        raw,
    )
