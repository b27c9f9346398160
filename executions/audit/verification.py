"""Looks whether the chain holds: nothing changed, missing, out of order or cut off at its end."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from django.db import connection

from executions.audit.chain import NO_HASH, Row, hash_of
from executions.audit.models import Entry, Head

CHUNK = 2000


@dataclass(frozen=True, slots=True)
class Link:
    """A place of the chain that somebody has noted: the head, or one told from outside."""

    seq: int
    hash: bytes
    source: str

    @classmethod
    def parse(cls, text: str, source: str) -> "Link":
        """Of `SEQ:HASH`. Raises ValueError."""
        seq, _, digest = text.strip().partition(":")
        return cls(int(seq), bytes.fromhex(digest), source)


@dataclass(slots=True)
class Verification:
    """Reads the whole log once, in constant memory; `findings` yields what is wrong."""

    links: list[Link] = field(default_factory=list)
    entries: int = 0
    last: str = ""
    """The head as `SEQ:HASH`: worth noting somewhere else."""

    def findings(self) -> Iterator[str]:
        head = Head.objects.filter(pk=1).first()
        end = head.seq if head else 0
        noted = list(self.links)
        if head:
            noted.append(Link(head.seq, bytes(head.hash), "the head"))
            self.last = str(head)
        by_seq: dict[int, list[Link]] = {}
        for link in noted:
            by_seq.setdefault(link.seq, []).append(link)
        yield from self._walk(end, by_seq)
        yield from self._absent(end, noted)
        yield from _beyond(head)

    def _walk(self, end: int, noted: dict[int, list[Link]]) -> Iterator[str]:
        before, seq = NO_HASH, 0
        for found, stored, row in _chained(end):
            self.entries += 1
            if found != seq + 1:
                yield f"{_range(seq + 1, found - 1)}: missing"
            elif hash_of(before, found, row) != stored:
                # The hash that stands there is taken over, so that one change is one finding.
                yield f"entry {found} ({row.verb}, id {row.id}): changed, or out of its order"
            for link in noted.get(found, ()):
                if link.hash != stored:
                    yield f"entry {found}: its hash is another one than {link.source} says"
            before, seq = stored, found
        if seq < end:
            yield f"{_range(seq + 1, end)}: missing at the end"

    def _absent(self, end: int, noted: list[Link]) -> Iterator[str]:
        for link in noted:
            if link.seq > end:
                yield f"{_range(end + 1, link.seq)}: missing at the end, {link.source} knew them"


def _range(first: int, last: int) -> str:
    return f"entry {first}" if first == last else f"entries {first} to {last}"


def _chained(end: int) -> Iterator[tuple[int, bytes, Row]]:
    rows = Entry.objects.filter(seq__lte=end).order_by("seq")
    names = ("seq", "hash", *Row._fields)
    for seq, stored, *values in rows.values_list(*names).iterator(chunk_size=CHUNK):
        yield seq, bytes(stored or b""), Row(*values)


def _beyond(head: Head | None) -> Iterator[str]:
    """Entries that claim a place which the head doesn't know of."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT max(seq) FROM audit_entry), (SELECT seq FROM audit_head WHERE id = 1)"
        )
        last, known = cursor.fetchone()
    if last and known is None:
        yield "the head is missing"
    elif last and last > known:
        yield f"{_range(known + 1, last)}: not added by the chain"
    elif head is not None and known is None:
        yield "the head is missing"
