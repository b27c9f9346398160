"""The images of the Dockerfile: built on this machine's own Debian, started, and asked."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from boxer_site.embedded_postgres import EmbeddedPostgres
from executions.sandbox.debian_image import machine_source
from tests.environment import new_home
from tests.registry import free_port
from tests.stack_access import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = "ca-certificates,python3,python3-venv"
CERTIFICATES = "/etc/ssl/certs:/etc/ssl/certs:ro"
"""Of this machine: its way to packages may have an authority of its own."""

# Makes a directory the root of a mount namespace. In a mere chroot, which is what buildah gives
# here, Linux refuses the user namespaces that gVisor makes (user_namespaces(7)).
ENTER = """
set -e
mount --bind "$1" "$1"
for name in sys dev; do mount --rbind "/$name" "$1/$name"; done
mount -t proc proc "$1/proc"
# Whatever a service manager likes to set there would be set for all of this machine.
mount --bind /proc/sys "$1/proc/sys"
mount -o remount,bind,ro "$1/proc/sys"
mount -t tmpfs tmpfs "$1/run"
mkdir -p "$1/run/database"
[ -z "$2" ] || mount --bind "$2" "$1/run/database"
cd "$1"
mkdir -p .old
pivot_root . .old
umount -l /.old
mount --make-rshared /
cd /opt/boxer
shift 2
exec "$@"
"""
NAMESPACES = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--"]
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Buildah:
    """Images and containers in a directory of its own."""

    def __init__(self, area: Path) -> None:
        self.area = area
        self.base = area / "base.tar"

    def __call__(self, *arguments: str, timeout: float = 400) -> str:
        command = ["buildah", "--root", str(self.area / "root"), "--runroot"]
        command += [str(self.area / "run"), "--storage-driver", "vfs", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout.strip()

    def make_base(self) -> None:
        """What stands for Debian's image, which no registry gives here."""
        source = machine_source()
        line = f"deb {source.options} {source.uri} {source.suite} main"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"]
        command += [source.suite, str(self.base), line]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        container = self("from", "scratch")
        self("add", container, str(self.base), "/")
        self("commit", "--rm", "--quiet", container, "boxer-test-base")

    def build(self, target: str) -> str:
        name = f"boxer-test-{target}"
        options = ["--isolation", "chroot", "--network", "host", "--volume", CERTIFICATES]
        options += ["--build-arg", "BASE=localhost/boxer-test-base", "--target", target]
        self("build", "--quiet", *options, "--tag", name, ".")
        return name

    @contextmanager
    def container(self, image: str) -> Iterator[str]:
        name = self("from", f"localhost/{image}")
        try:
            yield name
        finally:
            self("rm", name)

    def command(self, container: str) -> list[str]:
        config = json.loads(self("inspect", container))["OCIv1"]["config"]
        return [*config["Entrypoint"], *config["Cmd"]]


@pytest.fixture(scope="module")
def buildah() -> Iterator[Buildah]:
    made = Buildah(new_home())
    made.make_base()
    yield made
    made("rmi", "--all", "--force")


@pytest.fixture(scope="module")
def web_image(buildah: Buildah) -> str:
    return buildah.build("web")


@pytest.fixture
def database() -> Iterator[str]:
    """The directory of a socket that the user of the container reaches too."""
    home = new_home()
    with EmbeddedPostgres(home, throwaway=True).running() as server:
        for directory in (home, server.root, server.socket):
            directory.chmod(0o711)
        (server.socket / ".s.PGSQL.5432").chmod(0o666)
        yield str(server.socket)


def running(
    buildah: Buildah, container: str, words: list[str], env: Mapping[str, str], volume: str
) -> list[str]:
    given = [f"--env={name}={value}" for name, value in env.items()]
    options = ["--isolation", "chroot", "--network", "host", "--volume", f"{volume}:{volume}"]
    storage = ["--root", str(buildah.area / "root"), "--runroot", str(buildah.area / "run")]
    command = ["buildah", *storage, "--storage-driver", "vfs", "run", *given, *options]
    return [*command, container, "--", *words]


def test_the_web_image_starts_as_its_own_user_and_answers(
    buildah: Buildah, web_image: str, database: str
) -> None:
    port = free_port()
    env = {
        "DATABASE_URL": f"postgresql:///boxer?host={database}&user=postgres",
        "BOXER_LISTEN": f"127.0.0.1:{port}",
        "BOXER_SECRET_KEY": "of-a-test",
    }
    with buildah.container(web_image) as container:
        entry, words = buildah.command(container)[:2], buildah.command(container)
        migrate = running(buildah, container, [*entry, "migrate", "--noinput"], env, database)
        done = subprocess.run(migrate, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        show = [*entry[:1], "-c", "import os; print(os.getuid(), os.access('/opt', os.W_OK))"]
        who = subprocess.run(
            running(buildah, container, show, env, database), capture_output=True, text=True
        )
        assert who.stdout.split() == ["990", "False"]
        web = subprocess.Popen(
            running(buildah, container, words, env, database), stderr=subprocess.DEVNULL
        )
        try:

            def answer() -> httpx.Response | None:
                try:
                    return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5)
                except httpx.TransportError:
                    return None

            assert until(answer, "an answer of the container", timeout=60).json() == {"ok": True}
            ready = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=10).json()
            assert ready["checks"]["database"] == "ok"
        finally:
            web.terminate()
            web.wait(30)


@pytest.fixture(scope="module")
def worker_image(buildah: Buildah, web_image: str) -> str:
    return buildah.build("worker")


def test_the_worker_image_keeps_every_promise(buildah: Buildah, worker_image: str) -> None:
    with buildah.container(worker_image) as container:
        root = buildah("mount", container)
        try:
            words = [*buildah.command(container)[:2], "doctor", "--quick", "--host", "--json"]
            done = subprocess.run(
                [*NAMESPACES, "sh", "-c", ENTER, "enter", root, "", *words],
                env={"PATH": PATH, "BOXER_HOME": "/var/lib/boxer-worker"},
                capture_output=True,
                text=True,
                timeout=120,
            )
        finally:
            buildah("umount", container)
    assert done.returncode == 0, done.stdout + done.stderr
    states = {one["name"]: one["state"] for one in json.loads(done.stdout)}
    assert {states[name] for name in ("runsc", "memory", "network-none", "unpacker")} == {"kept"}


# ── systemd ──────────────────────────────────────────────────────────────────────────────────────

HIERARCHY = Path("/sys/fs/cgroup/systemd")
TARGET = """\
[Unit]
Requires=boxer-web.service boxer-worker.service
"""
ALL_SERVICES = """\
[Service]
StandardOutput=append:/var/log/boxer.log
StandardError=append:/var/log/boxer.log
"""
ENVIRONMENT = """\
BOXER_LISTEN=127.0.0.1:{port}
BOXER_STORAGE_DIR=/var/lib/boxer/contents
BOXER_STORAGE_SHARED=1
BOXER_WORKERS=2
"""
SYSTEMD = ["/lib/systemd/systemd", "--unit=boxer-test.target"]
NOT_OURS = (
    "systemd-sysctl systemd-modules-load systemd-random-seed systemd-journald "
    "systemd-journal-flush systemd-remount-fs systemd-update-utmp systemd-tmpfiles-setup "
    "systemd-tmpfiles-setup-dev systemd-sysusers systemd-pstore systemd-firstboot"
)
"""Services of the system that would touch more than our directory."""


def prepare_system(root: Path, port: int) -> None:
    """As the README says it, in a root file system of the worker's image with systemd."""
    units = root / "etc" / "systemd" / "system"
    for unit in (ROOT / "deploy").glob("*.service"):
        shutil.copy(unit, units)
    (units / "boxer-test.target").write_text(TARGET)
    (units / "service.d").mkdir()
    (units / "service.d" / "log.conf").write_text(ALL_SERVICES)
    sockets = ("systemd-journald", "systemd-journald-dev-log", "systemd-journald-audit")
    others = ("dev-hugepages.mount", "dev-mqueue.mount", "proc-sys-fs-binfmt_misc.automount")
    kernel = (f"sys-kernel-{name}.mount" for name in ("debug", "tracing", "config"))
    services = (f"{name}.service" for name in NOT_OURS.split())
    for name in (*services, *(f"{name}.socket" for name in sockets), *others, *kernel):
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    tables = [str(ROOT / "deploy" / f"boxer.{kind}") for kind in ("sysusers", "tmpfiles")]
    subprocess.run(["systemd-sysusers", f"--root={root}", tables[0]], check=True)
    subprocess.run(["systemd-tmpfiles", f"--root={root}", "--create", tables[1]], check=True)
    etc = root / "etc" / "boxer"
    (etc / "boxer.env").write_text(ENVIRONMENT.format(port=port))
    (etc / "database_url").write_text("postgresql:///boxer?host=/run/database&user=postgres")
    (etc / "secret_key").write_text("of-a-test")
    for name in ("database_url", "secret_key"):
        (etc / name).chmod(0o600)


@pytest.mark.skipif(
    Path("/run/systemd/system").exists() or not HIERARCHY.is_dir(),
    reason="a systemd runs this machine: a second one would work in its cgroups",
)
def test_the_units_start_in_a_systemd(buildah: Buildah, worker_image: str, database: str) -> None:
    port = free_port()
    before = {path.name for path in HIERARCHY.iterdir()}
    with buildah.container(worker_image) as container:
        options = ["--isolation", "chroot", "--network", "host", "--volume", CERTIFICATES]
        install = "apt-get update -qq && apt-get install -y -qq --no-install-recommends systemd"
        buildah("run", *options, container, "--", "sh", "-c", install)
        root = Path(buildah("mount", container))
        prepare_system(root, port)
        manager = subprocess.Popen(
            [*NAMESPACES, "sh", "-c", ENTER, "enter", str(root), database, *SYSTEMD],
            env={"PATH": PATH, "container": "boxer-test"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            log = root / "var" / "log" / "boxer.log"
            until(lambda: log.exists() and "worker is ready" in log.read_text(), str(log), 90)
            ready = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=10).json()
            assert set(ready["checks"].values()) == {"ok"}, log.read_text()
            [init] = psutil.Process(manager.pid).children()
            users = {child.cmdline()[2]: child.uids().real for child in init.children()}
            assert users["web"] == (root / "var/lib/boxer-web").stat().st_uid != 0
            assert users["worker"] == 0
            stop = ["nsenter", f"--target={init.pid}", "--mount", "--pid"]
            stop += [
                f"--root=/proc/{init.pid}/root",
                "systemctl",
                "stop",
                "boxer-web",
                "boxer-worker",
            ]
            subprocess.run(stop, check=True, timeout=60)
            assert [child.cmdline() for child in init.children()] == []
        finally:
            manager.kill()
            manager.wait()
            buildah("umount", container)
            remove_cgroups(before)


def remove_cgroups(before: set[str]) -> None:
    """The (empty) ones that the second systemd has made."""
    for made in HIERARCHY.iterdir():
        if made.is_dir() and made.name in {"init.scope", "system.slice"} - before:
            below = sorted((path for path in made.rglob("*") if path.is_dir()), reverse=True)
            for path in (*below, made):
                path.rmdir()
