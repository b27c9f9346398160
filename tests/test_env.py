"""Settings come from the environment, typed; a bad value names its variable."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from boxer_site import env
from tests.environment import HOME

NAME = "BOXER_TEST_VALUE"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("1", True), ("True", True), ("YES", True), ("on", True), ("0", False), ("off", False)],
)
def test_booleans(monkeypatch: pytest.MonkeyPatch, given: str, expected: bool) -> None:
    monkeypatch.setenv(NAME, given)
    assert env.boolean(NAME, not expected) is expected


@pytest.mark.parametrize("given", ["", "  "])
def test_an_empty_value_means_the_default(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(NAME, given)
    assert env.boolean(NAME, True) is True
    assert env.integer(NAME, 7) == 7
    assert env.decimal(NAME, 0.5, minimum=0) == 0.5
    assert env.text(NAME, "x") == "x"
    assert env.words(NAME, ("a",)) == ("a",)
    assert env.database(NAME) is None


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("maybe", "must be true or false"),
        ("2", "must be true or false"),
    ],
)
def test_a_bad_boolean_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, given: str, why: str
) -> None:
    monkeypatch.setenv(NAME, given)
    with pytest.raises(ImproperlyConfigured, match=f"{NAME}='{given}': {why}"):
        env.boolean(NAME, False)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("ten", "must be a whole number"),
        ("1.5", "must be a whole number"),
        ("1e3", "must be a whole number"),
        ("0", "must be at least 1"),
        ("-4", "must be at least 1"),
        ("11", "must be at least 1 and at most 10"),
    ],
)
def test_a_bad_number_names_its_variable_and_the_bounds(
    monkeypatch: pytest.MonkeyPatch, given: str, why: str
) -> None:
    monkeypatch.setenv(NAME, given)
    with pytest.raises(ImproperlyConfigured, match=f"{NAME}='{given}': {why}"):
        env.integer(NAME, 5, maximum=10)


@pytest.mark.parametrize("given", ["nan", "inf", "-1", "0", "1,5"])
def test_a_bad_decimal_names_its_variable(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(NAME, given)
    with pytest.raises(ImproperlyConfigured, match=NAME):
        env.decimal(NAME, 1.0, minimum=0.01, maximum=64.0)


def test_a_path_must_be_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "~/boxer")
    assert env.path(NAME, "/x") == Path("~/boxer").expanduser()
    monkeypatch.setenv(NAME, "boxer")
    with pytest.raises(ImproperlyConfigured, match=f"{NAME}='boxer': must be an absolute path"):
        env.path(NAME, "/x")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:9", ("::1", 9)),
    ],
)
def test_addresses(given: str, expected: tuple[str, int]) -> None:
    assert env.parse_listen(given, NAME) == expected


@pytest.mark.parametrize("given", ["8080", ":80", "host", "host:", "host:x", "h:70000", "a/b:1"])
def test_a_bad_address_names_its_variable(given: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"{NAME}=.*must be HOST:PORT"):
        env.parse_listen(given, NAME)


def test_networks_are_ipv4_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.networks(NAME) == ()
    monkeypatch.setenv(NAME, "10.1.0.0/16, 172.20.1.5/32")
    assert env.networks(NAME) == ("10.1.0.0/16", "172.20.1.5/32")
    for given in ("10.1.2.3/16", "fd00::/8", "10.0.0.0/33", "outside"):
        monkeypatch.setenv(NAME, given)
        with pytest.raises(ImproperlyConfigured, match=f"{NAME}=.*must be IPv4 networks"):
            env.networks(NAME)


def test_a_subnet_has_room_for_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.network(NAME) == ""
    monkeypatch.setenv(NAME, "10.1.0.0/29")
    assert env.network(NAME) == "10.1.0.0/29"
    for given in ("10.1.0.0/30", "10.1.0.0/24 10.2.0.0/24"):
        monkeypatch.setenv(NAME, given)
        with pytest.raises(ImproperlyConfigured, match="must be one IPv4 network"):
            env.network(NAME)


def test_a_database_url_becomes_djangos_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "postgresql://me:s%40crt@db.example:5433/runs?sslmode=require")
    assert env.database(NAME) == {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "runs",
        "USER": "me",
        "PASSWORD": "s@crt",
        "HOST": "db.example",
        "PORT": "5433",
        "OPTIONS": {"sslmode": "require"},
    }


@pytest.mark.parametrize(
    ("given", "why"),
    [("mysql://db/runs", "must be postgresql://"), ("postgresql://db", "names no database")],
)
def test_a_bad_database_url_names_its_variable_and_not_its_password(
    monkeypatch: pytest.MonkeyPatch, given: str, why: str
) -> None:
    monkeypatch.setenv(NAME, given)
    with pytest.raises(ImproperlyConfigured, match=f"{NAME}: .*{why}"):
        env.database(NAME)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("BOXER_HOME", "relative"),
        ("BOXER_HOME", "/" + "x" * 90),
        ("BOXER_LISTEN", "nowhere"),
        ("BOXER_PLATFORM", "vmware"),
        ("BOXER_IGNORE_CGROUPS", "perhaps"),
        ("BOXER_OUTPUT_LIMIT_BYTES", "0"),
        ("BOXER_UPLOAD_LIMIT_BYTES", "10MB"),
        ("BOXER_DEFAULT_CPU_CORES", "-1"),
        ("BOXER_DEFAULT_MEMORY_MB", "999999"),
        ("BOXER_MAX_WALL_CLOCK_SECS", "forever"),
        ("BOXER_WORKERS", "0"),
        ("BOXER_PULL_TIMEOUT_SECS", "x"),
        ("BOXER_STORAGE", "tape"),
        ("DATABASE_URL", "mysql://root@db/x"),
    ],
)
def test_each_setting_stops_the_start_and_names_itself(name: str, given: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        env={**os.environ, "BOXER_HOME": str(HOME), name: given},
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"boxer: {name}")
    assert "Traceback" not in done.stderr


# ── Values in files ──────────────────────────────────────────────────────────────────────────────


def test_any_value_can_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "value"
    monkeypatch.setenv(f"{NAME}_FILE", str(file))
    file.write_text("7\n")
    assert env.text(NAME) == "7"
    assert env.integer(NAME, 1) == 7
    assert env.decimal(NAME, 1.0, minimum=0) == 7.0
    assert env.words(NAME) == ("7",)
    file.write_text(" yes\n")
    assert env.boolean(NAME, False) is True
    file.write_text("postgresql://me:secret@db/boxer\n")
    assert (env.database(NAME) or {})["PASSWORD"] == "secret"


def test_a_value_and_its_file_are_not_given_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "value").write_text("from the file")
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "value"))
    monkeypatch.setenv(NAME, "given")
    with pytest.raises(ImproperlyConfigured, match=f"{NAME} and {NAME}_FILE: only one") as raised:
        env.text(NAME)
    assert "from the file" not in str(raised.value)


@pytest.mark.parametrize(("content", "why"), [(None, "can't be read"), ("\n", "is empty")])
def test_a_file_that_holds_nothing_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, why: str
) -> None:
    if content is not None:
        (tmp_path / "value").write_text(content)
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "value"))
    with pytest.raises(ImproperlyConfigured, match=f"{NAME}_FILE=.*{why}"):
        env.text(NAME, "default")


def test_the_settings_take_their_secrets_of_files(tmp_path: Path) -> None:
    secrets = {
        "BOXER_SECRET_KEY": "the-key",
        "DATABASE_URL": "postgresql://me:db-secret@127.0.0.1:1/boxer",
        "BOXER_S3_SECRET_KEY": "s3-secret",
    }
    given = {"BOXER_STORAGE": "s3", "BOXER_S3_BUCKET": "b", "BOXER_S3_ACCESS_KEY": "a"}
    for name, value in secrets.items():
        (tmp_path / name).write_text(f"{value}\n")
        given[f"{name}_FILE"] = str(tmp_path / name)
    show = (
        "from boxer_site import settings as s; print(s.SECRET_KEY, s.BOXER_EMBEDDED_POSTGRES, "
        "s.DATABASES['default']['PASSWORD'], s.STORAGES['default']['OPTIONS']['secret_key'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", show],
        env={**os.environ, "BOXER_HOME": str(HOME), **given},
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    assert done.stdout == "the-key False db-secret s3-secret\n", done.stderr


def test_networks_of_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOXER_X", "10.1.0.0/16, fd00::/8 192.0.2.7")
    assert [str(one) for one in env.any_networks("BOXER_X")] == [
        "10.1.0.0/16",
        "fd00::/8",
        "192.0.2.7/32",
    ]
    monkeypatch.setenv("BOXER_X", "10.1.0.1/16")
    with pytest.raises(ImproperlyConfigured, match=r"BOXER_X='10.1.0.1/16': must be a network"):
        env.any_networks("BOXER_X")
