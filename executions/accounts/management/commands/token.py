"""`manage.py token`: API tokens from the command line."""

from argparse import ArgumentParser

from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, CommandError

from executions.accounts import services
from executions.accounts.models import Token
from executions.errors import InvalidRequest


class Command(BaseCommand):
    help = "Make, list and revoke API tokens."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        below = parser.add_subparsers(dest="what", required=True)
        create = below.add_parser("create", help="prints the token, which is shown just once")
        create.add_argument("user")
        create.add_argument("--name", required=True, help="What it is for.")
        create.add_argument("--days", type=int, default=services.DEFAULT_DAYS)
        listing = below.add_parser("list")
        listing.add_argument("user", nargs="?")
        revoke = below.add_parser("revoke")
        revoke.add_argument("id", type=int)

    def handle(self, *, what: str, **options: object) -> None:
        if what == "create":
            self.create(str(options["user"]), str(options["name"]), int(str(options["days"])))
        elif what == "list":
            self.list(options["user"])
        elif not services.revoke_token(token_id=int(str(options["id"]))):
            raise CommandError(f"there is no token {options['id']}")

    def create(self, username: str, name: str, days: int) -> None:
        user_id = _user_id(username)
        try:
            _, secret = services.create_token(user_id=user_id, name=name, days=days)
        except InvalidRequest as error:
            raise CommandError(error.message) from None
        self.stdout.write(secret)

    def list(self, username: object) -> None:
        tokens = Token.objects.select_related("user")
        if username:
            tokens = tokens.filter(user_id=_user_id(str(username)))
        for token in tokens.iterator():
            ends = "-" if token.expiry is None else f"{token.expiry:%Y-%m-%d %H:%M}"
            used = f"{token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "never"
            owner = token.user.get_username()
            self.stdout.write(f"{token.pk}\t{owner}\t{token.name}\tends {ends}\tused {used}")


def _user_id(username: str) -> int:
    found = get_user_model().objects.filter(username=username).values_list("pk", flat=True).first()
    if found is None:
        raise CommandError(f"there is no user {username!r}")
    return int(found)
