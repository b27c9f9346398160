"""Who a request comes from: until there are accounts, everybody is the built-in anonymous user."""

from copy import copy
from functools import cache

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

ANONYMOUS = "anonymous"


@cache
def anonymous_user() -> AbstractBaseUser:
    """The built-in user (made by a migration); read once per process."""
    return get_user_model().objects.get_by_natural_key(ANONYMOUS)


class AnonymousAccess(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[AbstractBaseUser, None]:  # noqa: ARG002
        # A copy: Django keeps the permissions that it has looked up with the object.
        return copy(anonymous_user()), None
