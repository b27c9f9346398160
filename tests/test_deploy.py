"""Units and images for production: the web server needs no privilege, the workers little more."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from boxer_site.embedded_postgres import EmbeddedPostgres
from tests.environment import new_home
from tests.stack import MANAGE, Stack, manage

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
MOST_EXPOSED = {
    # What `systemd-analyze security` may say at most: of 10, the more the worse.
    "boxer-web.service": 1.5,
    "boxer-migrate.service": 1.5,
    "boxer-worker.service": 6.5,
}
NOBODY = 65534


def directives(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


# ── systemd ──────────────────────────────────────────────────────────────────────────────────────


def test_there_are_units_for_each_part() -> None:
    assert {unit.name for unit in UNITS} == set(MOST_EXPOSED)


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine"
)


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        # The program has to be there to be verified.
        text = unit.read_text().replace("/opt/boxer/.venv/bin/python", sys.executable)
        (tmp_path / unit.name).write_text(text)
    units = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_units_are_exposed_no_more_than_they_need(unit: Path) -> None:
    threshold = round(MOST_EXPOSED[unit.name] * 10)
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={threshold}"]
    done = subprocess.run([*command, str(unit)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_only_the_workers_are_root_and_no_unit_holds_a_secret(unit: Path) -> None:
    told = directives(unit)
    assert told["User"] == ["root" if unit.name == "boxer-worker.service" else "boxer"]
    assert (told["CapabilityBoundingSet"] == [""]) == (unit.name != "boxer-worker.service")
    assert told["NoNewPrivileges"] == ["yes"]
    read = {name for line in told["Environment"] for name in re.findall(r"(\w+)_FILE=%d/", line)}
    assert read == {"BOXER_SECRET_KEY", "DATABASE_URL"}
    assert not re.search(r"(SECRET_KEY|DATABASE_URL|PASSWORD)=", unit.read_text())


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_commands_of_the_units_exist(unit: Path) -> None:
    [start] = directives(unit)["ExecStart"]
    words = shlex.split(start)
    assert words[:2] == ["/opt/boxer/.venv/bin/python", "manage.py"]
    done = manage(*words[2:3], "--help", home=new_home())
    assert done.returncode == 0
    assert all(option in done.stdout for option in words[3:])


def test_the_example_of_the_environment_is_valid(tmp_path: Path) -> None:
    lines = (DEPLOY / "boxer.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert given["BOXER_HTTPS"] == "1"
    assert not [name for name in given if "SECRET" in name or "DATABASE" in name]
    show = (
        "from boxer_site import settings as s; "
        "print(s.SESSION_COOKIE_SECURE, s.ALLOWED_HOSTS, s.STORAGES['default']['OPTIONS'])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", show],
        env={**os.environ, **given, "BOXER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "True ['boxer.example.org'] {'location': '/var/lib/boxer/contents'"
    )


# ── As the units run it ──────────────────────────────────────────────────────────────────────────


def python_for_nobody() -> tuple[list[str], dict[str, str]]:
    """An interpreter that any user of this machine can execute, with our packages."""
    packages = {"PYTHONPATH": sysconfig.get_path("purelib")}
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for program, env in ((sys.executable, {}), (f"/usr/bin/python{version}", packages)):
        command = [*unprivileged(), program, "-c", "import django, psycopg, uvloop"]
        done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, cwd="/")
        if done.returncode == 0:
            return [program], env
    pytest.skip("this Python lies where no other user can execute it")


def unprivileged() -> list[str]:
    drop = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups"]
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", *drop, "--"]


def as_the_worker_unit() -> list[str]:
    """Root with the capabilities of boxer-worker.service and the group of the web server."""
    listed = " ".join(directives(DEPLOY / "boxer-worker.service")["CapabilityBoundingSet"]).split()
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in listed)
    drop = ["--no-new-privs", f"--bounding-set=-all,{kept}", f"--regid={NOBODY}", "--clear-groups"]
    return ["setpriv", *drop, "--"]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of a PostgreSQL that other users of this machine reach."""
    home = new_home()
    with EmbeddedPostgres(home, throwaway=True).running() as server:
        for directory in (home, server.root, server.socket):
            directory.chmod(0o711)
        (server.socket / ".s.PGSQL.5432").chmod(0o666)
        yield f"postgresql:///boxer?host={server.socket}&user=postgres"


def test_the_web_server_runs_as_nobody_and_the_workers_with_the_units_capabilities(
    database: str, busybox_reference: str
) -> None:
    python, env = python_for_nobody()
    shared, web_home, worker_home = new_home(), new_home(), new_home()
    for directory, mode in ((shared, 0o2770), (web_home, 0o700)):
        os.chown(directory, NOBODY, NOBODY)
        directory.chmod(mode)
    secret = web_home / "given"
    secret.write_text("a-key-of-both")
    os.chown(secret, NOBODY, NOBODY)
    both = {
        **env,
        "DATABASE_URL": database,
        "BOXER_STORAGE_DIR": str(shared),
        "BOXER_STORAGE_SHARED": "1",
        "BOXER_SECRET_KEY_FILE": str(secret),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    assert manage("migrate", "--noinput", home=web_home, env=both).returncode == 0
    ready = re.compile(r"^Boxer serves at (http://\S+)$", re.MULTILINE)
    web = Stack(home=web_home, env=both, ready=ready)
    web.command = [*unprivileged(), *python, str(MANAGE), "web", "--listen", "127.0.0.1:0"]
    worker = Stack(
        home=worker_home, env=both, ready=re.compile("^Boxer worker is ready$", re.MULTILINE)
    )
    worker.command = [*as_the_worker_unit(), *worker.command[:2], "worker", "--workers", "2"]
    with web, worker:
        assert psutil.Process(web.pid).uids().real == NOBODY
        status = Path(f"/proc/{web.pid}/status").read_text()
        assert re.findall(r"^Cap(?:Prm|Eff|Bnd):\t(\S+)", status, re.MULTILINE) == ["0" * 16] * 3
        web.wait_until_ready()
        upload = {"file": b"in"}
        sent = httpx.post(f"{web.base_url}/files", data={"path": "a"}, files=upload, timeout=30)
        assert sent.status_code == 200, web.log
        code, answer = web.run(
            image=busybox_reference,
            cmd=["sh", "-c", "cat /a; echo out >/output/file"],
            files=["a"],
            persist=True,
            limits={"memory_mb": 32},
        )
        assert (code, answer["stdout"]) == (200, "in"), (answer, worker.log)
        path = {"path": f"output/{answer['exec_id']}/file"}
        assert httpx.get(f"{web.base_url}/files", params=path, timeout=30).content == b"out\n"


# ── Containers ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())  # type: ignore[no-any-return]


def stages() -> dict[str, str]:
    """The text of each stage of the Dockerfile."""
    parts = re.split(r"^FROM \S+ AS (\w+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_compose_starts_everything_in_its_order(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"database", "migrate", "web", "worker"}
    for name in ("web", "worker"):
        waits = services[name]["depends_on"]["migrate"]["condition"]
        assert waits == "service_completed_successfully"
    assert services["migrate"]["depends_on"]["database"]["condition"] == "service_healthy"
    built = {service["build"]["target"] for service in services.values() if "build" in service}
    assert built == set(stages()) == {"web", "worker"}


def test_compose_gives_privileges_to_the_worker_alone(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service.get("privileged", False) == (name == "worker")
    for name in ("web", "migrate"):
        assert compose["services"][name]["cap_drop"] == ["ALL"]
    assert compose["services"]["web"]["read_only"] is True
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["web"]["ports"])


def test_compose_holds_no_secret(compose: dict[str, Any]) -> None:
    text = (ROOT / "compose.yaml").read_text()
    assert not re.search(r"(SECRET_KEY|DATABASE_URL|PASSWORD): ", text)
    for service in compose["services"].values():
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
    for secret in compose["secrets"].values():
        ignored = subprocess.run(["git", "check-ignore", "-q", secret["file"]], cwd=ROOT)
        assert ignored.returncode == 0, "a secret that git would take in"


def test_the_images_end_as_the_users_that_they_should() -> None:
    users = {
        name: re.findall(r"^USER (\w+)$", text, re.MULTILINE) for name, text in stages().items()
    }
    assert users == {"web": ["boxer"], "worker": ["root"]}
    copied = re.findall(r"^COPY (.+) \S+$", stages()["web"], re.MULTILINE)
    for source in " ".join(copied).split():
        assert (ROOT / source).exists()
