"""Users of the shared stack, with passwords and tokens."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from tests.stack import Stack, manage

PASSWORD = "correct horse battery"

MAKE = """
import json
from django.contrib.auth.models import Group, User
from executions.accounts.services import create_token
made = {}
for name, groups in GIVEN.items():
    user = User.objects.create_user(name, password=PASSWORD)
    user.groups.set(Group.objects.filter(name__in=groups))
    made[name] = [user.pk, create_token(user_id=user.pk, name=f"token of {name}")[1]]
print(json.dumps(made))
"""


@dataclass(frozen=True)
class Account:
    base_url: str
    user_id: int
    name: str
    token: str

    def client(self) -> httpx.Client:
        """Sends the token with everything."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=60)

    @contextmanager
    def browser(self) -> Iterator[httpx.Client]:
        """Logged in by the page, and sends the CSRF token."""
        with httpx.Client(base_url=self.base_url, timeout=60) as client:
            self._log_in(client)
            yield client

    def _log_in(self, client: httpx.Client) -> None:
        client.get("/login")
        csrf = {"X-CSRFToken": client.cookies["boxer_csrf"]}
        form = {"username": self.name, "password": PASSWORD}
        done = client.post("/login", data=form, headers=csrf)
        assert done.status_code == 302, done.text
        client.headers["X-CSRFToken"] = client.cookies["boxer_csrf"]


def make_accounts(stack: Stack, **groups: list[str]) -> dict[str, Account]:
    """Users by name, each in these groups; one process makes all of them."""
    code = f"GIVEN = {groups!r}\nPASSWORD = {PASSWORD!r}\n{MAKE}"
    done = manage("shell", "--no-imports", "-c", code, home=stack.home)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    return {name: Account(stack.base_url, *[made[name][0], name, made[name][1]]) for name in made}


@pytest.fixture(scope="session")
def accounts(stack: Stack) -> dict[str, Account]:
    """Two who may nothing, and one who may look at everything."""
    return make_accounts(stack, carol=[], dave=[], auditor=["Auditors"])
