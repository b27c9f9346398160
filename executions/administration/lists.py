"""How the list of executions is narrowed: by what an index finds, or few rows have."""

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import CharField, Func, QuerySet, Value
from django.db.models.functions import Left
from django.http import HttpRequest
from django.utils import timezone

from executions.administration import periods
from executions.models import Execution, Outcome, Status
from filestore.admin_base import BoundedChangeList

SHOWN_CHARACTERS = 100
LARGE = (
    "cmd", "env", "files", "outputs", "labels", "left_out", "error", "image_terms", "callback_url",
    "cwd",
)  # fmt: skip


class ExecutionChangeList(BoundedChangeList):
    """Reads the beginning of each command, and nothing else that may be large."""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        joined = Func("cmd", Value(" "), function="array_to_string", output_field=CharField())
        rows: QuerySet[Any] = super().get_queryset(request, *args, **kwargs).defer(*LARGE)
        shown: QuerySet[Any] = rows.annotate(command_shown=Left(joined, SHOWN_CHARACTERS + 1))
        return shown


class StatusFilter(admin.SimpleListFilter):
    """Those that ended are found by their outcome: an index has them."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:  # noqa: ARG002
        unfinished = (Status.QUEUED, Status.PULLING, Status.RUNNING, Status.CANCELLED)
        return [
            *((status.value, status.value) for status in unfinished),
            *((outcome.value, outcome.value.replace("_", " ")) for outcome in Outcome),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Execution]) -> QuerySet[Execution]:  # noqa: ARG002
        asked = self.value()
        if asked is None:
            return queryset
        if asked in Outcome.values or asked == Status.CANCELLED:
            # In the words of the index's condition: it alone is read then.
            ended = queryset.filter(status__in=[Status.FINISHED, Status.CANCELLED])
            return ended.filter(outcome="" if asked == Status.CANCELLED else asked)
        return queryset.filter(status=asked)


class PeriodFilter(admin.SimpleListFilter):
    """A hierarchy of dates: years, then the months of one, then its days."""

    title = "when submitted (UTC)"
    parameter_name = "submitted"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:  # noqa: ARG002
        offered = periods.offered(self.value(), timezone.now())
        return [(period.text, period.title) for period in offered]

    def has_output(self) -> bool:
        return True

    def queryset(self, request: HttpRequest, queryset: QuerySet[Execution]) -> QuerySet[Execution]:  # noqa: ARG002
        asked = self.value()
        if not asked:
            return queryset
        try:
            period = periods.parse(asked)
        except (ValueError, OverflowError) as error:
            raise IncorrectLookupParameters(str(error)) from None
        return periods.within(queryset, period.begins, period.ends)


def search(rows: QuerySet[Execution], term: str) -> QuerySet[Execution]:
    """By the beginning of an id, or by a user's whole name; never by both, which no index does."""
    term = term.strip()
    if not term:
        return rows
    if term.startswith("boxer-"):
        return rows.filter(exec_id__startswith=term)
    user_model: Any = Execution._meta.get_field("owner").related_model  # noqa: SLF001 - documented
    owner = user_model.objects.filter(username=term).values_list("pk", flat=True).first()
    return rows.none() if owner is None else rows.filter(owner_id=owner)
