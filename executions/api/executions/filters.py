"""Which executions a list shows: the query's parameters, checked, as one bounded look."""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Func, QuerySet, TextField, Value
from django.http import QueryDict
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive
from rest_framework.exceptions import ValidationError

from executions.api.fields import text
from executions.models import Execution, Outcome, Status

WINDOW = 10_000
"""How many executions a page with filters looks at; one that ends there is short, and `next` goes
on from there. No filter reads a table of millions in one request, however little it finds."""
PAGE = 50
MOST = 200


@dataclass(frozen=True, slots=True)
class Page:
    results: list[Execution]
    next: str | None


def page(asked: QueryDict, visible: QuerySet[Execution]) -> Page:
    """Raises ValidationError naming the parameter."""
    limit = _limit(asked.get("limit"))
    everything = visible.order_by("-pk")
    if (cursor := asked.get("cursor")) is not None:
        everything = everything.filter(pk__lt=_decoded(cursor))
    found, floor = everything, None
    filters = _filters(asked)
    if filters:
        floor = everything.values_list("pk", flat=True)[WINDOW - 1 : WINDOW].first()
        for apply in filters:
            found = apply(found)
        if floor is not None:
            found = found.filter(pk__gte=floor)
    rows = list(found.select_related("owner", "rerun_of")[: limit + 1])
    if len(rows) > limit:
        return Page(rows[:limit], _encoded(rows[limit - 1].pk))
    return Page(rows, None if floor is None else _encoded(floor))


Filter = Callable[[QuerySet[Execution]], QuerySet[Execution]]


def _filters(asked: QueryDict) -> list[Filter]:
    exact: dict[str, Any] = {}
    for name, choices in (("status", Status.values), ("outcome", Outcome.values)):
        if (value := asked.get(name)) is not None:
            if value not in choices:
                raise ValidationError({name: [f"Must be one of {', '.join(choices)}."]})
            exact[name] = value
    if (image := asked.get("image")) is not None:
        exact["image"] = _text("image", image)
    if (owner := asked.get("owner")) is not None:
        exact["owner__username"] = _text("owner", owner)
    for name, lookup in (("created_after", "gt"), ("created_before", "lt")):
        if (moment := asked.get(name)) is not None:
            exact[f"created_at__{lookup}"] = _moment(name, moment)
    if labels := [_label(label) for label in asked.getlist("label")]:
        exact["labels__contains"] = dict(labels)
    found: list[Filter] = [lambda rows: rows.filter(**exact)] if exact else []
    if (words := asked.get("command")) is not None:
        found.append(_command(_text("command", words)))
    return found


def _command(words: str) -> Filter:
    joined = Func("cmd", Value(" "), function="array_to_string", output_field=TextField())
    return lambda rows: rows.annotate(command=joined).filter(command__icontains=words)


def _text(name: str, value: str) -> str:
    try:
        return text(value)
    except ValidationError as error:
        raise ValidationError({name: error.detail}) from None


def _label(value: str) -> tuple[str, str]:
    name, equals, label = _text("label", value).partition("=")
    if not name or not equals:
        raise ValidationError({"label": ["Must be name=value."]})
    return name, label


def _moment(name: str, value: str) -> datetime:
    try:
        found = parse_datetime(value)
    except ValueError:
        found = None
    if found is None or is_naive(found):
        raise ValidationError({name: ["Must be an ISO 8601 time with its zone."]})
    return found


def _limit(value: str | None) -> int:
    if value is None:
        return PAGE
    if not (value.isascii() and value.isdigit() and len(value) < 6 and 1 <= int(value) <= MOST):
        raise ValidationError({"limit": [f"Must be from 1 to {MOST}."]})
    return int(value)


def _encoded(pk: int) -> str:
    return base64.urlsafe_b64encode(f"before:{pk}".encode()).decode().rstrip("=")


def _decoded(cursor: str) -> int:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        name, _, pk = base64.b64decode(padded, b"-_", validate=True).decode().partition(":")
        if name == "before" and pk.isascii() and pk.isdigit() and len(pk) < 19:
            return int(pk)
    except (binascii.Error, UnicodeError, ValueError):
        pass
    raise ValidationError({"cursor": ["Must be what `next` of another page says."]})
