"""Actions that ask first on a page of their own, and then say what they did and what not."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html, format_html_join

from executions.actor import Actor
from executions.audit import current_actor
from executions.errors import BoxerError
from filestore.errors import FilestoreError

MOST = 100
"""Of one action: what is more is left alone, and that is said."""


class LeftAlone(Exception):
    """Nothing was to be done; the message says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to each chosen row. `work` raises BoxerError or LeftAlone where it isn't."""

    name: str
    title: str
    warning: str
    done: str
    """What is said of those that it was done to: `cancelled`."""
    permission: str
    work: Callable[[Actor, Any], str | None]
    """Its answer, if any, is what came of it."""


def action(step: Step) -> Callable[[Any, HttpRequest, QuerySet[Any]], HttpResponse | None]:
    """For `actions` of an admin."""

    def run(model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        if not request.user.has_perm(step.permission):
            raise PermissionDenied
        chosen = list(queryset.order_by("-pk")[: MOST + 1])
        more, chosen = len(chosen) > MOST, chosen[:MOST]
        if "confirmed" not in request.POST:
            return _question(model_admin, request, step, chosen, more=more)
        _tell(model_admin, request, step, *_done(step, chosen))
        return None

    run.__name__ = step.name
    return admin.action(description=f"{step.title}…", permissions=[step.name])(run)


def permitted(*steps: Step) -> type:
    """A mixin with `has_…_permission` of each: who may not do it isn't offered it."""

    def asks(permission: str) -> Callable[[Any, HttpRequest], bool]:
        return lambda _self, request: request.user.has_perm(permission)

    found = {f"has_{step.name}_permission": asks(step.permission) for step in steps}
    return type("Permitted", (), found)


def _question(
    model_admin: Any, request: HttpRequest, step: Step, chosen: list[Any], *, more: bool
) -> HttpResponse:
    context = {
        **model_admin.admin_site.each_context(request),
        "title": step.title,
        "opts": model_admin.opts,
        "step": step,
        "chosen": chosen,
        "more": more,
        "most": MOST,
        "checkbox": ACTION_CHECKBOX_NAME,
    }
    return TemplateResponse(request, "administration/confirm.html", context)


def _done(step: Step, chosen: Iterable[Any]) -> tuple[int, list[str], Counter[str]]:
    """How many it was done to, what came of them, and why not to the others."""
    number, came = 0, []
    refused: Counter[str] = Counter()
    for row in chosen:
        try:
            answer = step.work(current_actor(), row)
        except (BoxerError, FilestoreError, LeftAlone) as error:
            refused[str(error)] += 1
        else:
            number += 1
            came += [answer] if answer else []
    return number, came, refused


def _tell(
    model_admin: Any,
    request: HttpRequest,
    step: Step,
    number: int,
    came: list[str],
    refused: Counter[str],
) -> None:
    if number:
        told = format_html("{} {}", number, step.done)
        if came:
            told = format_html("{}: {}", told, format_html_join(" ", "{}", ((x,) for x in came)))
        model_admin.message_user(request, told, messages.SUCCESS)
    for why, times in refused.items():
        model_admin.message_user(request, f"{times} left alone: {why}.", messages.WARNING)
    if not number and not refused:
        model_admin.message_user(request, "Nothing was chosen.", messages.WARNING)
