"""The base of admin pages of large tables: nothing changes there, nothing is counted whole."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

_COUNTED_ROWS = 2_000


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # not generic at run time
    """Counts no further than 2,000 rows: whoever looks for older ones searches."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        # A slice is counted in a subquery, which ends with the slice. It keeps its order: without
        # one PostgreSQL reads the table from its beginning, past whatever isn't looked for.
        return int(rows.values("pk")[:_COUNTED_ROWS].count())


class BoundedChangeList(ChangeList):
    """In the order of an index, whatever `?o=` asks for: another would sort the whole table."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:  # noqa: ARG002
        return list(self.model_admin.get_ordering(request))


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    paginator = BoundedPaginator
    show_full_result_count = False
    # They count the whole table once for each choice of each filter.
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    list_per_page = 50
    ordering = ["-id"]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:  # noqa: ARG002
        return BoundedChangeList

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False
