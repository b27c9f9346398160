"""Who stored what, for reading; the only change is deleting, and that is the service's."""

import re
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from filestore import services
from filestore.admin_base import ReadOnlyAdmin
from filestore.models import Blob, StoredFile

LEFT_BY_A_RUN = re.compile(r"output/boxer-[0-9a-f]{20}/")
"""A directory that an index of its own finds."""


@admin.register(StoredFile)
class StoredFileAdmin(ReadOnlyAdmin):
    list_display = ["path", "owner", "size", "created_at"]
    list_select_related = ["owner", "blob"]
    search_fields = ["path__startswith", "owner__username__exact"]
    search_help_text = "The beginning of a path, or a user name."
    fields = ["path", "owner", "size", "sha256", "created_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[StoredFile]:
        return StoredFile.objects.visible_to(request.user).order_by(*self.ordering)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[StoredFile], search_term: str
    ) -> tuple[QuerySet[StoredFile], bool]:
        if LEFT_BY_A_RUN.fullmatch(search_term.strip()):
            return StoredFile.objects.left_by_run(search_term.strip()) & queryset, False
        return super().get_search_results(request, queryset, search_term)

    @admin.display(description="bytes")
    def size(self, stored: StoredFile) -> int:
        return stored.blob.size

    @admin.display(description="sha256")
    def sha256(self, stored: StoredFile) -> str:
        return stored.blob.sha256

    def delete_model(self, request: HttpRequest, obj: StoredFile) -> None:  # noqa: ARG002
        services.unlink(owner_id=obj.owner_id, path=obj.path, blob_id=obj.blob_id)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[StoredFile]) -> None:
        for stored in queryset:
            self.delete_model(request, stored)


@admin.register(Blob)
class BlobAdmin(ReadOnlyAdmin):
    list_display = ["sha256", "size", "state", "created_at", "kept_until"]
    list_filter = ["state"]
    search_fields = ["sha256__startswith"]
    search_help_text = "The beginning of a sha256."
    fields = ["sha256", "size", "name", "state", "created_at", "kept_until"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """Contents go when nothing refers to them (filestore/garbage.py), never by hand."""
        return False
