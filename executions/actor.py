"""Who does something: what quotas count against and what the audit log writes down."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

if TYPE_CHECKING:
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
    def of(cls, request: "Request") -> Self:
        return cls(
            user_id=cast(int, request.user.pk),
            username=request.user.get_username(),
            token=str(getattr(request.auth, "name", "") or ""),
            address=request.META.get("REMOTE_ADDR", ""),
        )
