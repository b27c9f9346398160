"""`manage.py audit`: show, export and verify the audit log."""

import json
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import QuerySet
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.timezone import is_naive, make_aware

from executions.audit import chain, witness
from executions.audit.models import Entry
from executions.audit.verbs import Verb
from executions.audit.verification import Link, Verification

MOST_FINDINGS = 100
CHUNK = 1000


class Command(BaseCommand):
    help = "Shows, exports and verifies the audit log."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        verify = actions.add_parser(
            "verify", help="look whether anything was changed or is missing"
        )
        verify.add_argument(
            "--head", type=_head, metavar="SEQ:HASH", help="a head that was noted elsewhere"
        )
        listing = actions.add_parser("list", help="the newest entries, newest first")
        listing.add_argument("--limit", type=int, default=50, metavar="N")
        export = actions.add_parser("export", help="all entries as JSON lines, oldest first")
        for one in (listing, export):
            one.add_argument("--user", metavar="NAME")
            one.add_argument("--verb", choices=[verb.value for verb in Verb], metavar="VERB")
            one.add_argument("--object", metavar="ID")
            one.add_argument("--since", type=_moment, metavar="WHEN", help="ISO 8601")
            one.add_argument("--until", type=_moment, metavar="WHEN")

    def handle(self, *_: Any, action: str, **options: Any) -> None:
        actions: dict[str, Callable[..., None]] = {
            "verify": self.verify,
            "list": self.tell,
            "export": self.export,
        }
        actions[action](**options)

    def verify(self, *, head: Link | None, **_: Any) -> None:
        links = [head] if head else []
        try:
            chain.chain()
            if seen := witness.noted(settings.BOXER_HOME):
                links.append(seen)
        except chain.HeadMissing:
            pass  # told below, with everything else
        except ValueError as error:
            raise CommandError(f"{settings.BOXER_HOME / witness.NAME}: {error}") from None
        verification = Verification(links)
        found = 0
        for found, finding in enumerate(verification.findings(), 1):
            if found <= MOST_FINDINGS:
                self.stderr.write(self.style.ERROR(finding))
        if found:
            raise CommandError(f"the audit log doesn't hold: {found} findings", returncode=1)
        self.stdout.write(f"{verification.entries} entries hold; the last is {verification.last}")

    def tell(self, *, limit: int, **options: Any) -> None:
        for entry in _chosen(**options).order_by("-id")[:limit]:
            times = " ".join(f"{key}={json.dumps(value)}" for key, value in entry.details.items())
            token = f" (token {entry.token})" if entry.token else ""
            self.stdout.write(
                f"{entry.at:%Y-%m-%d %H:%M:%S} {entry.username or '-'}{token}"
                f" {entry.address or '-'} {entry.verb} {entry.object_type} {entry.object_id}"
                f" {times}".rstrip()
            )

    def export(self, **options: Any) -> None:
        """What is chained, so that an export can be verified by itself."""
        chain.chain()
        for line in _lines(_chosen(**options)):
            sys.stdout.write(line)


def _lines(entries: QuerySet[Entry]) -> Iterator[str]:
    names = ("seq", *chain.Row._fields, "hash")
    rows = entries.filter(seq__isnull=False).order_by("seq").values_list(*names)
    for values in rows.iterator(chunk_size=CHUNK):
        told = dict(zip(names, values, strict=True))
        told["at"], told["hash"] = told["at"].isoformat(), bytes(told["hash"]).hex()
        yield json.dumps(told, ensure_ascii=False, sort_keys=True) + "\n"


def _chosen(
    *,
    user: str | None,
    verb: str | None,
    since: datetime | None,
    until: datetime | None,
    **options: Any,
) -> QuerySet[Entry]:
    conditions = {
        "username": user,
        "verb": verb,
        "object_id": options["object"],
        "at__gte": since,
        "at__lt": until,
    }
    given = {name: value for name, value in conditions.items() if value is not None}
    return Entry.objects.filter(**given)


def _head(text: str) -> Link:
    return Link.parse(text, "--head")


def _moment(text: str) -> datetime:
    day = parse_date(text) if len(text) == 10 else None
    found = datetime(day.year, day.month, day.day) if day else parse_datetime(text)  # noqa: DTZ001
    if found is None:
        raise ValueError(text)
    return make_aware(found) if is_naive(found) else found
