"""Deliveries in the admin: to read, and to have delivered again."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest

from executions.admin_base import ReadOnlyAdmin
from executions.callbacks import services
from executions.callbacks.models import Delivery, Try

MOST_AT_ONCE = 500


class TryInline(admin.TabularInline):  # type: ignore[type-arg]  # not generic at run time
    model = Try
    fields = ["at", "ms", "status", "error", "answer"]
    readonly_fields = ["at", "ms", "status", "error", "answer"]
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return request.user.has_perm("callbacks.view_delivery")


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    list_display = ["id", "created_at", "user", "event", "execution", "url", "state", "tried"]
    list_select_related = ["user", "execution"]
    list_filter = ["state", "event"]
    search_fields = ["execution__exec_id__exact", "user__username__exact"]
    search_help_text = "An execution's id or a user's name, whole."
    ordering = ["-created_at"]
    exclude = ["leased_until", "message_id"]
    inlines = [TryInline]
    actions = ["deliver_again"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        found: QuerySet[Delivery] = super().get_queryset(request)
        return found.annotate(number_of_tries=Count("tries"))

    @admin.display(description="tries")
    def tried(self, delivery: Any) -> int:
        return int(delivery.number_of_tries)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    def has_deliver_again_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("callbacks.deliver_again")

    @admin.action(description="Deliver again", permissions=["deliver_again"])
    def deliver_again(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        number = services.deliver_again(deliveries=queryset.order_by()[:MOST_AT_ONCE])
        messages.info(request, f"{number} will be delivered again within seconds.")
