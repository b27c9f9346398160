"""The list's filters as its form sends them, as the API takes them."""

from datetime import date, timedelta

from django.http import QueryDict
from rest_framework.exceptions import ValidationError

NAMES = ("status", "outcome", "image", "command", "label", "owner", "since", "until")
_SAME = ("status", "outcome", "image", "command", "owner", "limit", "cursor")


def asked(given: QueryDict) -> QueryDict:
    """A field left empty is none. `until` is a day that still counts. Raises ValidationError."""
    found = QueryDict(mutable=True)
    for name in _SAME:
        if value := given.get(name, "").strip():
            found[name] = value
    if labels := [label for label in given.getlist("label") if label.strip()]:
        found.setlist("label", labels)
    if (since := _day("since", given)) is not None:
        # Of a day every moment, so after the last one of the day before.
        last = since - timedelta(days=1)
        found["created_after"] = f"{last.isoformat()}T23:59:59.999999Z"
    if (until := _day("until", given)) is not None:
        found["created_before"] = f"{(until + timedelta(days=1)).isoformat()}T00:00:00Z"
    return found


def kept(given: QueryDict) -> QueryDict:
    """The filters alone, for links to other pages of the same list."""
    found = QueryDict(mutable=True)
    for name in NAMES:
        if values := [value for value in given.getlist(name) if value.strip()]:
            found.setlist(name, values)
    return found


def _day(name: str, given: QueryDict) -> date | None:
    value = given.get(name, "").strip()
    if not value:
        return None
    try:
        found = date.fromisoformat(value)
    except ValueError:
        found = date.min
    if not 1970 <= found.year <= 9000:
        raise ValidationError({name: ["Must be a day as 2026-01-31."]})
    return found
