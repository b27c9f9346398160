"""The images of the Dockerfile: built on this machine's own Debian, started, and asked."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
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
for name in proc sys dev; do mount --rbind "/$name" "$1/$name"; done
cd "$1"
mkdir -p .old
pivot_root . .old
umount -l /.old
cd /opt/boxer
shift
exec "$@"
"""


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


def test_the_worker_image_keeps_every_promise(buildah: Buildah, web_image: str) -> None:
    image = buildah.build("worker")
    with buildah.container(image) as container:
        root = buildah("mount", container)
        try:
            words = [*buildah.command(container)[:2], "doctor", "--quick", "--host", "--json"]
            done = subprocess.run(
                ["unshare", "--mount", "--", "sh", "-c", ENTER, "enter", root, *words],
                env={
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    "BOXER_HOME": "/var/lib/boxer-worker",
                },
                capture_output=True,
                text=True,
                timeout=120,
            )
        finally:
            buildah("umount", container)
    assert done.returncode == 0, done.stdout + done.stderr
    states = {one["name"]: one["state"] for one in json.loads(done.stdout)}
    assert {states[name] for name in ("runsc", "memory", "network-none", "unpacker")} == {"kept"}
