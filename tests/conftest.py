"""Fixtures that many tests use."""

from collections.abc import Iterator

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

from boxer_site.embedded_postgres import EmbeddedPostgres
from executions.accounts.authentication import ANONYMOUS, anonymous_user
from tests.environment import HOME
from tests.registry import Registry
from tests.stack import Stack

STACK_ENV = {
    "BOXER_TAG_TTL_SECS": "3",
    "BOXER_ANONYMOUS_HOST_NETWORK": "1",
    "BOXER_CALLBACK_ALLOW": "127.0.0.0/8",
    # A test that fails to log in does it from an address of its own, so as to hold up no other.
    "BOXER_TRUSTED_PROXIES": "127.0.0.1",
}

pytest_plugins = [
    "tests.fixtures_images",
    "tests.fixtures_sandbox",
    "tests.fixtures_storage",
    "tests.fixtures_accounts",
]


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The suite's PostgreSQL, on the socket that the settings name."""
    with EmbeddedPostgres(HOME, throwaway=True).running() as server:
        yield server


@pytest.fixture(scope="session")
def stack(registry: Registry) -> Iterator[Stack]:
    """A Boxer for every test that needs none of its own; `registry` is its docker.io."""
    with Stack("--workers", "4", env=STACK_ENV) as running:
        yield running


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    postgres: EmbeddedPostgres, django_db_modify_db_settings_parallel_suffix: None
) -> None:
    """A test database is made when PostgreSQL runs."""


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """Tests with transactions truncate every table after them; the audit log refuses that."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        for table in ("audit_entry", "audit_head"):
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_truncate")


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """It goes with its whole cluster; dropping it would only trip over open connections."""
    return True


@pytest.fixture
def alice(db: None) -> User:
    return get_user_model().objects.create_user("alice")


@pytest.fixture
def bob(db: None) -> User:
    return get_user_model().objects.create_user("bob")


@pytest.fixture
def anonymous(db: None) -> Iterator[User]:
    """The built-in user; a test that flushes the database takes away the one of the migration."""
    anonymous_user.cache_clear()
    yield get_user_model().objects.get_or_create(username=ANONYMOUS)[0]
    anonymous_user.cache_clear()
