"""Who does something: what quotas count against and what the audit log writes down."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

if TYPE_CHECKING:
    from django.http import HttpRequest
    from rest_framework.request import Request


@dataclass(frozen=True, slots=True)
class Actor:
    user_id: int
    username: str
    token: str = ""
    """Name of the API token that the request carried, if any."""
    address: str = ""
    """Where the request came from; empty for a command on this machine."""

    @classmethod
    def of(cls, request: "Request | HttpRequest") -> Self:
        return cls(
            user_id=cast(int, request.user.pk),
            username=request.user.get_username(),
            # A page's request has no `auth`: a session carries no token.
            token=str(getattr(getattr(request, "auth", None), "name", "") or ""),
            address=request.META.get("REMOTE_ADDR", ""),
        )
