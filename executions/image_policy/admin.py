"""Rules, pins and images in the admin."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from executions.admin_base import ReadOnlyAdmin
from executions.image_policy.models import CachedImage, Pin, Rule


@admin.register(Rule)
class RuleAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    list_display = [
        "name",
        "priority",
        "pattern",
        "action",
        "user",
        "group",
        "max_bytes",
        "platform",
    ]
    list_filter = ["action"]
    list_select_related = ["user", "group"]
    search_fields = ["name", "pattern"]
    autocomplete_fields = ["user", "group"]


@admin.register(Pin)
class PinAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    list_display = ["reference", "digest"]
    search_fields = ["reference", "digest"]


@admin.register(CachedImage)
class CachedImageAdmin(ReadOnlyAdmin):
    list_display = ["names", "host", "state", "size", "last_used", "pulled_by", "rule"]
    list_filter = ["state"]
    ordering = ["-last_used"]
    search_fields = ["digest__startswith", "host__startswith", "pulled_by__exact"]
    search_help_text = "The beginning of a digest or a host, or who brought it."
    fields = [
        "digest", "references", "host", "state", "size", "first_seen", "last_used", "pulled_by",
        "rule",
    ]  # fmt: skip

    @admin.display(description="references")
    def names(self, image: CachedImage) -> str:
        return " ".join(image.references) or image.digest

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False
