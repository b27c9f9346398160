"""GET /healthz and GET /readyz."""

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.test import AsyncClient, Client
from django.utils import timezone
from django_q.models import OrmQ
from pytest_django import Settings

from executions import hosts
from executions.models import WorkerHost
from tests.answers import error_of


def checks_of(body: dict[str, Any]) -> dict[str, str]:
    checks: dict[str, str] = body["checks"]
    assert set(checks) == {"database", "queue", "cluster", "runsc"}
    return checks


def ill(client: Client) -> set[str]:
    checks = checks_of(error_of(client.get("/readyz"), 503, "not_ready"))
    return {name for name, found in checks.items() if found != "ok"}


@pytest.fixture
def host(db: None) -> str:
    host_id = str(uuid.uuid4())
    hosts.started(host_id=host_id, name="here", workers=2, runsc_version="release-1")
    return host_id


async def test_health_needs_no_database(async_client: AsyncClient) -> None:
    # pytest-django lets no query through in a test that doesn't ask for the database.
    response = await async_client.get("/healthz")
    assert response.status_code == 200
    assert json.loads(response.content) == {"ok": True}


async def test_health_answers_head(async_client: AsyncClient) -> None:
    assert (await async_client.head("/healthz")).status_code == 200


async def test_health_is_406_for_who_takes_no_json(async_client: AsyncClient) -> None:
    response = await async_client.get("/healthz", headers={"Accept": "image/png"})
    error_of(response, 406, "not_acceptable")


def test_ready_when_all_is_well(client: Client, host: str) -> None:
    response = client.get("/readyz")
    assert response.status_code == 200
    body = json.loads(response.content)
    assert body["ok"] is True
    assert set(checks_of(body).values()) == {"ok"}


def test_not_ready_without_a_worker_host(client: Client, db: None) -> None:
    WorkerHost.objects.all().delete()
    assert ill(client) == {"cluster", "runsc"}


def test_not_ready_with_a_host_that_fell_silent(client: Client, host: str) -> None:
    WorkerHost.objects.update(seen_at=timezone.now() - timedelta(seconds=30))
    assert ill(client) == {"cluster", "runsc"}


def test_not_ready_with_a_host_that_stopped(client: Client, host: str) -> None:
    hosts.stopped(host_id=host)
    assert ill(client) == {"cluster", "runsc"}


def test_not_ready_when_no_host_has_runsc(client: Client, host: str) -> None:
    WorkerHost.objects.update(runsc_version="")
    assert ill(client) == {"runsc"}


def test_not_ready_when_the_queue_is_full(client: Client, host: str, settings: Settings) -> None:
    settings.BOXER_QUEUE_LIMIT = 2
    OrmQ.objects.bulk_create(OrmQ(key="boxer", payload="x", lock=timezone.now()) for _ in range(3))
    assert ill(client) == {"queue"}


def test_not_ready_without_a_database(client: Client, db: None) -> None:
    def refuse(*_: object) -> None:
        raise OperationalError("no route to the secret host")

    with connection.execute_wrapper(refuse):
        response = client.get("/readyz")
    checks = checks_of(error_of(response, 503, "not_ready"))
    assert checks["database"] == "does not answer"
    assert "ok" not in checks.values()
    assert b"secret" not in response.content


def test_anybody_may_ask(client: Client, host: str, anonymous: User) -> None:
    anonymous.delete()
    assert client.get("/readyz").status_code == 200
