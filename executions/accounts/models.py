"""API tokens, and how often somebody failed to log in lately."""

from typing import TYPE_CHECKING, Self

from django.db import models
from django.utils import timezone
from knox.models import AbstractAuthToken

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


class TokenQuerySet(models.QuerySet["Token"]):
    def visible_to(self, user: "AbstractBaseUser | AnonymousUser") -> Self:
        """A user's own, whatever else they may see."""
        return self.filter(user_id=user.pk)


class Token(AbstractAuthToken):
    """An API token of django-rest-knox: only its SHA-512 is kept, so it can be shown just once.

    `token_key` is its beginning, by which it is found; what is secret of it has 196 bits.
    """

    # Knox has the digest for its key, which would then stand in addresses.
    id = models.BigAutoField(primary_key=True)
    digest = models.CharField(max_length=128, unique=True)
    name = models.CharField(max_length=100, help_text="What it is for.")
    last_used_at = models.DateTimeField(null=True, help_text="To the minute.")

    objects = TokenQuerySet.as_manager()  # type: ignore[assignment,misc]  # knox's makes them too

    class Meta:
        ordering = ["-id"]
        default_permissions = ("view", "delete")

    def __str__(self) -> str:
        return self.name

    @property
    def expired(self) -> bool:
        return self.expiry is not None and self.expiry <= timezone.now()


class Attempts(models.Model):
    """How often what `key` stands for (an address, a name and an address, a name) failed lately."""

    key = models.CharField(max_length=64, primary_key=True, help_text="sha256 of what it is.")
    count = models.PositiveIntegerField()
    until = models.DateTimeField(db_index=True, help_text="Counts from one again then.")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.count} until {self.until}"
