"""Rules, pins and images in the admin."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest

from executions.admin_base import ReadOnlyAdmin
from executions.audit import current_actor
from executions.errors import BoxerError
from executions.image_policy import prefetches
from executions.image_policy.models import CachedImage, Pin, Prefetch, Rule


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


class PrefetchForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """Asks for the prefetch while it is validated: only then is it known whether a rule says no."""

    class Meta:
        model = Prefetch
        fields = ["image"]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if "image" in cleaned:
            try:
                self.instance = prefetches.request(actor=current_actor(), image=cleaned["image"])
            except BoxerError as error:
                raise forms.ValidationError({"image": error.message}) from None
        return cleaned


@admin.register(Prefetch)
class PrefetchAdmin(ReadOnlyAdmin):
    form = PrefetchForm
    list_display = ["image", "state", "come", "requested_by", "requested_at", "host", "error"]
    list_filter = ["state"]
    ordering = ["-requested_at"]
    search_fields = ["reference__startswith", "requested_by__exact"]
    actions = ["cancel"]
    told = [
        "image", "reference", "state", "digest", "come", "error", "error_code", "requested_by",
        "requested_at", "host", "started_at", "finished_at",
    ]  # fmt: skip

    @admin.display(description="progress")
    def come(self, prefetch: Prefetch) -> str:
        if prefetch.bytes_total is None:
            return ""
        return (
            f"{prefetch.bytes_done / 1e6:.1f} of {prefetch.bytes_total / 1e6:.1f} MB, "
            f"{prefetch.layers_done} of {prefetch.layers_total} layers"
        )

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:  # noqa: ARG002
        return self.told if obj else ["image"]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """The form has had it made already."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("image_policy.add_prefetch")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("image_policy.cancel_prefetch")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    @admin.action(description="Cancel the selected prefetches", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Prefetch]) -> None:
        if not self.has_cancel_permission(request):
            raise PermissionDenied
        chosen = queryset.values_list("pk", flat=True)[: prefetches.MOST_WAITING]
        ended = [prefetches.cancel(actor=current_actor(), prefetch_id=one) for one in chosen]
        self.message_user(request, f"{sum(ended)} cancelled.", messages.SUCCESS)
