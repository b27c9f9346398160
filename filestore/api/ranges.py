"""Pure: what a GET's Range and condition headers ask of contents of a known size and ETag."""

import re
from dataclasses import dataclass

from django.utils.http import parse_etags

# 18 digits are more than any size; without a bound a header could hold numbers of megabytes.
_ONE_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    start: int
    length: int

    def content_range(self, size: int) -> str:
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


class Unsatisfiable(Exception):
    """A well-formed range that lies outside of the contents: 416."""


def unchanged(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has these contents already (RFC 9110, 13.1.2: the weak comparison)."""
    if not if_none_match:
        return False
    known = [tag.removeprefix("W/") for tag in parse_etags(if_none_match)]
    return known == ["*"] or etag in known


def byte_range(
    header: str | None, if_range: str | None, *, size: int, etag: str
) -> ByteRange | None:
    """The part to send, None for the whole. Raises Unsatisfiable.

    Several ranges, other units and what isn't well-formed are answered with the whole, as RFC 9110
    (14.2) allows; so is a range whose If-Range isn't this very ETag.
    """
    if header is None or (if_range is not None and if_range.strip() != etag):
        return None
    found = _ONE_RANGE.fullmatch(header.strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if first and last and int(last) < int(first):
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= size:
        raise Unsatisfiable
    return ByteRange(start, end - start)
