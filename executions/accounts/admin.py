"""Tokens in the admin, never their secrets; what is done there is revoking them."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from executions.accounts import services
from executions.accounts.models import Token
from executions.admin_base import ReadOnlyAdmin


@admin.register(Token)
class TokenAdmin(ReadOnlyAdmin):
    list_display = ["name", "user", "created", "expiry", "last_used_at"]
    list_select_related = ["user"]
    search_fields = ["name", "user__username__exact"]
    search_help_text = "A part of its name, or a user name."
    fields = ["name", "user", "created", "expiry", "last_used_at"]
    actions = ["revoke"]

    @admin.action(description="Revoke selected tokens", permissions=["delete"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[Token]) -> None:
        ids = list(queryset.values_list("pk", flat=True)[: self.list_per_page])
        revoked = sum(services.revoke_token(token_id=pk) for pk in ids)
        self.message_user(request, f"{revoked} revoked.", messages.SUCCESS)

    def delete_model(self, request: HttpRequest, obj: Token) -> None:  # noqa: ARG002
        services.revoke_token(token_id=obj.pk)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Revoking is the same as deleting, by its right name."""
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions
