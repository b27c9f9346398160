"""Secrets in a run's environment reach the program and nothing else, and are gone when it ends."""

import subprocess
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from executions import hosts, services
from executions.actor import Actor
from executions.models import Execution, new_exec_id
from executions.sandbox.spec import Limits
from executions.sealed import services as sealed
from executions.sealed.models import SealedEnvironment
from tests.stack import Stack
from tests.stack_access import execution, query, until

HOST = "11111111-1111-1111-1111-111111111111"
VALUE = "s3cr3t-Zq8-value-that-nobody-else-has"


def submit(owner: User, *env: str) -> Execution:
    hosts.started(host_id=HOST, name="here", workers=1, runsc_version="1")
    exec_id, limits = new_exec_id(), Limits(1.0, 64, 16, 5, 64)
    request = services.RunRequest(
        exec_id, "busybox:1", ("env",), env, "/", (), "none", False, limits
    )
    services.submit(actor=Actor(owner.pk, owner.username), request=request)
    return Execution.objects.get(exec_id=exec_id)


def opened(run: Execution) -> list[str]:
    return sealed.opened(execution_id=run.pk, exec_id=run.exec_id, env=run.env)


# ── What counts as a secret ──────────────────────────────────────────────────────────────────────


SECRETS = """
    PASSWORD DB_PASSWORD MYSQL_PASSWORD_1 db_passwd SSH_PASSPHRASE CLIENT_SECRET GITHUB_TOKEN token
    GOOGLE_APPLICATION_CREDENTIALS AWS_SECRET_ACCESS_KEY OPENAI_API_KEY APIKEY SENTRY_DSN
    DATABASE_URL
"""


@pytest.mark.parametrize("name", SECRETS.split())
def test_names_that_are_taken_for_secrets(name: str) -> None:
    assert sealed.masked([f"{name}=a=b"]) == [f"{name}=***"]


@pytest.mark.parametrize("name", ["PATH", "HOME", "KEY", "KEYBOARD", "MONKEY", "LANG", "A_KEYS"])
def test_names_that_are_not(name: str) -> None:
    assert sealed.masked([f"{name}=password"]) == [f"{name}=password"]


def test_the_pattern_is_the_operators(settings: object) -> None:
    settings.BOXER_SECRET_ENV_PATTERN = ("X_*",)  # type: ignore[attr-defined]
    assert sealed.masked(["X_1=a", "PASSWORD=b"]) == ["X_1=***", "PASSWORD=b"]


# ── What is stored ───────────────────────────────────────────────────────────────────────────────


def test_what_is_stored_is_masked_and_what_is_opened_is_whole(alice: User) -> None:
    env = ("A=1", f"DB_PASSWORD={VALUE}", "TOKEN=***", "PLAIN=***", "TOKEN=two")
    run = submit(alice, *env)
    assert run.env == ["A=1", "DB_PASSWORD=***", "TOKEN=***", "PLAIN=***", "TOKEN=***"]
    assert VALUE.encode() not in bytes(SealedEnvironment.objects.get(pk=run.pk).data)
    assert opened(run) == list(env)


def test_a_pattern_that_was_changed_meanwhile_changes_nothing(
    alice: User, settings: object
) -> None:
    run = submit(alice, f"DB_PASSWORD={VALUE}", "OTHER=***", "MY_TOKEN=x")
    settings.BOXER_SECRET_ENV_PATTERN = ("OTHER",)  # type: ignore[attr-defined]
    assert opened(run) == [f"DB_PASSWORD={VALUE}", "OTHER=***", "MY_TOKEN=x"]


def test_a_run_without_secrets_costs_nothing(alice: User) -> None:
    run = submit(alice, "A=1")
    with CaptureQueriesContext(connection) as captured:
        assert opened(run) == ["A=1"]
        sealed.seal(execution_id=run.pk, exec_id=run.exec_id, env=["A=1"])
    assert len(captured) == 0
    assert not SealedEnvironment.objects.exists()


def test_a_mask_that_the_client_sent_is_passed_on(alice: User) -> None:
    assert opened(submit(alice, "STARS=***")) == ["STARS=***"]


def test_the_secrets_of_one_run_are_not_opened_for_another(alice: User) -> None:
    one, other = (submit(alice, f"TOKEN={value}") for value in (VALUE, "x"))
    stolen = SealedEnvironment.objects.get(pk=one.pk).data
    SealedEnvironment.objects.filter(pk=other.pk).update(data=stolen)
    with pytest.raises(sealed.SealBroken):
        opened(other)


def test_with_another_key_nothing_is_opened_and_the_message_has_no_value(
    alice: User, settings: object
) -> None:
    run = submit(alice, f"TOKEN={VALUE}")
    settings.SECRET_KEY = "another"  # type: ignore[attr-defined]
    sealed._fernet.cache_clear()
    try:
        with pytest.raises(sealed.SealBroken, match="BOXER_SECRET_KEY") as raised:
            opened(run)
        assert VALUE not in str(raised.value)
    finally:
        sealed._fernet.cache_clear()


# ── When it goes ─────────────────────────────────────────────────────────────────────────────────


def test_they_go_when_the_run_has_ended(alice: User) -> None:
    run = submit(alice, f"TOKEN={VALUE}")
    claimed = services.claim(exec_id=run.exec_id, host_id=HOST, worker="w")
    assert claimed is not None
    assert SealedEnvironment.objects.filter(pk=run.pk).exists()
    services.queue_again(execution=claimed)
    assert SealedEnvironment.objects.filter(pk=run.pk).exists(), "it is still to run"
    claimed = services.claim(exec_id=run.exec_id, host_id=HOST, worker="w")
    assert claimed is not None
    services.reap_worker(host_id=HOST, worker="w")
    assert SealedEnvironment.objects.filter(pk=run.pk).exists(), "it is tried again"
    claimed = services.claim(exec_id=run.exec_id, host_id=HOST, worker="w")
    assert claimed is not None
    assert services.finish(execution=claimed, ending=services.Ending(outcome="exited"))  # type: ignore[arg-type]
    assert not SealedEnvironment.objects.filter(pk=run.pk).exists()


def test_they_go_when_the_run_is_withdrawn_or_deleted(alice: User) -> None:
    withdrawn, deleted = submit(alice, "TOKEN=a"), submit(alice, "TOKEN=b")
    assert services.withdraw(exec_id=withdrawn.exec_id)
    deleted.delete()
    assert not SealedEnvironment.objects.exists()


# ── Over HTTP ────────────────────────────────────────────────────────────────────────────────────


def tables_with(stack: Stack, text: str) -> list[str]:
    """Every table of the database in whose rows, written out, `text` stands: plain or as bytes."""
    names = query(stack, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    hexadecimal = text.encode().hex()
    found = []
    for name in (str(row["tablename"]) for row in names):
        sql = f'SELECT count(*) AS n FROM "{name}" t WHERE t::text LIKE %s OR t::text LIKE %s'  # noqa: S608
        [row] = query(stack, sql, f"%{text}%", f"%{hexadecimal}%")
        if row["n"]:
            found.append(name)
    return found


def grep(text: str, directory: Path) -> str:
    """Files below that hold it; those of PostgreSQL's data are looked at as tables."""
    command = ["grep", "-rlaF", "--exclude-dir=data", "--exclude-dir=images", text, str(directory)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


def test_the_program_gets_the_secret_and_nothing_keeps_it(
    stack: Stack, busybox_reference: str
) -> None:
    status, answer = stack.run(
        image=busybox_reference,
        cmd=["sh", "-c", 'echo "${#DB_PASSWORD} $PLAIN"; exit 3'],
        env=[f"DB_PASSWORD={VALUE}", "PLAIN=seen"],
    )
    assert (status, answer["stdout"], answer["exit_code"]) == (200, f"{len(VALUE)} seen\n", 3)
    assert execution(stack, answer["exec_id"])["env"] == ["DB_PASSWORD=***", "PLAIN=seen"]
    assert tables_with(stack, "PLAIN=seen") == ["executions_execution"], "the search finds things"
    assert tables_with(stack, VALUE) == []
    assert query(stack, "SELECT count(*) AS n FROM sealed_sealedenvironment") == [{"n": 0}]
    assert VALUE not in stack.log
    until(lambda: grep(VALUE, stack.home) == "", "the sandbox's own files are gone")


def test_a_run_that_fails_for_us_keeps_it_as_little(stack: Stack, busybox_reference: str) -> None:
    value = f"{VALUE}-failed"
    status, answer = stack.run(image="nothing-like-that:1", cmd=["env"], env=[f"API_TOKEN={value}"])
    assert status >= 400
    assert value not in str(answer)
    assert tables_with(stack, value) == []
    assert value not in stack.log
    assert query(stack, "SELECT count(*) AS n FROM sealed_sealedenvironment") == [{"n": 0}]


def test_a_refused_request_does_not_tell_it_again(stack: Stack, busybox_reference: str) -> None:
    status, answer = stack.run(
        image=busybox_reference, cmd=[""], env=[f"API_TOKEN={VALUE}", "no assignment"]
    )
    assert status == 400
    assert VALUE not in str(answer)
    assert VALUE not in stack.log
