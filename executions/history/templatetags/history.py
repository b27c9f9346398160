"""Filters of the pages of runs."""

from collections.abc import Mapping
from datetime import datetime

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from executions.history import visible as text

register = template.Library()

_AGES = ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@register.filter
def visible(value: object) -> str:
    return text.visible(str(value))


@register.filter
def command(value: list[str]) -> str:
    return text.command(value)


@register.filter
def labels(value: Mapping[str, object]) -> list[str]:
    return [text.visible(f"{name}={label}") for name, label in value.items()]


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """How long ago, with the moment itself where one points at it."""
    if moment is None:
        return "-"
    exact = moment.astimezone(timezone.get_default_timezone())
    told = f"{exact:%Y-%m-%d %H:%M:%S} UTC"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', exact.isoformat(), told, _age(moment)
    )


def _age(moment: datetime) -> str:
    seconds = int((timezone.now() - moment).total_seconds())
    for length, unit in _AGES:
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return "now"


@register.filter
def duration(milliseconds: int | None) -> str:
    """Milliseconds as a person says them."""
    if milliseconds is None:
        return "-"
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 120_000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds // 60_000} min {milliseconds // 1000 % 60} s"
