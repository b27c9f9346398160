"""The audit log in the admin: to read, to search and to filter."""

import json
from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from executions.admin_base import ReadOnlyAdmin
from executions.audit.models import Entry
from executions.audit.verbs import Verb


class VerbFilter(admin.SimpleListFilter):
    """From what there can be, not from what there is: no look at the whole table."""

    title = "verb"
    parameter_name = "verb"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:  # noqa: ARG002
        return [(verb.value, verb.value.replace("_", " ")) for verb in Verb]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Entry]) -> QuerySet[Entry]:  # noqa: ARG002
        return queryset.filter(verb=self.value()) if self.value() else queryset


class OthersFilter(admin.SimpleListFilter):
    title = "whose object"
    parameter_name = "others"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:  # noqa: ARG002
        return [("1", "somebody else's")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Entry]) -> QuerySet[Entry]:  # noqa: ARG002
        return queryset.filter(owner_id__isnull=False) if self.value() else queryset


@admin.register(Entry)
class EntryAdmin(ReadOnlyAdmin):
    list_display = ["at", "who", "token", "address", "verb", "object_type", "object_id"]
    list_filter = [VerbFilter, OthersFilter, "at"]
    search_fields = ["username__exact", "object_id__exact", "address__exact"]
    search_help_text = "A user name, an object's name or number, or an address, whole."
    fields = [
        "seq", "at", "user_id", "username", "token", "address", "verb", "object_type",
        "object_id", "owner_id", "told", "digest",
    ]  # fmt: skip

    @admin.display(description="who", ordering="username")
    def who(self, entry: Entry) -> str:
        return entry.username or "-"

    @admin.display(description="details")
    def told(self, entry: Entry) -> SafeString:
        return format_html("<pre>{}</pre>", json.dumps(entry.details, indent=2, sort_keys=True))

    @admin.display(description="hash")
    def digest(self, entry: Entry) -> str:
        return bytes(entry.hash).hex() if entry.hash else "not chained yet"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False
