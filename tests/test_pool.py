"""The pool: sandboxes booted ahead, each given to one worker, none lost with whoever dies."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from executions import workers
from executions.sandbox import kernel, pool
from executions.sandbox.images import Image, ImageStore
from executions.sandbox.rootfs import fits
from executions.sandbox.sandbox import Host, Sandbox, clear
from executions.sandbox.spec import End
from tests.environment import new_home
from tests.fixtures_sandbox import House, file, make_host, run_spec
from tests.made_images import busybox_image
from tests.stack import MANAGE

REFERENCE = "boxer.local/busybox:1"
OTHER = "boxer.local/other:1"


class PoolHouse(House):
    """A home with a pool of its own, as `manage.py pool` runs it; we are its worker."""

    image: Image
    other: Image
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, **settings: object) -> None:
        environment = {
            "BOXER_POOL_SIZE": "2",
            "BOXER_WORKER_HOST_ID": "00000000-0000-0000-0000-000000000000",
            **{name: str(value) for name, value in settings.items()},
        }
        self.process = subprocess.Popen(
            [sys.executable, str(MANAGE), "pool"],
            env={**os.environ, "BOXER_HOME": str(self.home), **environment},
            stdin=subprocess.DEVNULL,
        )
        self.until(lambda: self.status() is not None)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(signum)
        code = self.process.wait(10)
        self.process = None
        return code

    @property
    def socket(self) -> Path:
        return self.home / "pool.sock"

    def status(self) -> dict[str, int] | None:
        return pool.status(self.socket)

    def idle(self) -> int:
        status = self.status()
        return -1 if status is None else status["idle"]

    def until(self, condition: Callable[[], object], timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, self.status()
            time.sleep(0.05)

    @contextmanager
    def taken(self, image: Image | None = None) -> Iterator[Sandbox | None]:
        with pool.taken(self.socket, self.host, image or self.image, "none") as sandbox:
            try:
                yield sandbox
            finally:
                if sandbox is not None:
                    sandbox.destroy()

    def warm(self, number: int = 2, image: Image | None = None) -> None:
        """Ask once, so that it is wanted, and wait until the pool has it."""
        with self.taken(image):
            pass
        self.until(lambda: self.idle() >= number)

    def printed(self, sandbox: Sandbox | None, script: str) -> bytes:
        assert sandbox is not None, "the pool had none"
        result = sandbox.execute(run_spec(sandbox, ("sh", "-c", script)), self.image.env)
        assert (result.end, result.stderr) == (End.EXITED, b"")
        return result.stdout


@pytest.fixture
def house(tmp_path: Path, subreaper: None) -> Iterator[PoolHouse]:
    home = new_home()
    (home / "workers").mkdir()
    host = make_host(home)
    ours = workers.register(home, "us")
    store = ImageStore(home / "images", size_limit=64 << 20, pull_timeout=30, tag_ttl=300)
    image = store.import_archive(busybox_image(tmp_path / "layout"), REFERENCE)
    config = {"Env": ["PATH=/bin", "OTHER=1"]}
    other = store.import_archive(busybox_image(tmp_path / "other", config), OTHER)
    house = PoolHouse(home, _below(host, ours.directory), image.rootfs, image.rootfs)
    house.image, house.other = image, other
    yield house
    if house.process is not None:
        assert house.stop() == 0
    clear(house.host)
    workers.forget(ours)
    _bury(house)
    assert house.host.hierarchy is not None
    house.host.hierarchy.remove_group()
    assert [path.name for path in (home / "workers").iterdir()] == []
    assert kernel.mounts_below(home) == []


def _below(host: Host, directory: Path) -> Host:
    return dataclasses.replace(host, directory=directory)


def _bury(house: PoolHouse) -> int:
    """As the keeper does."""
    with workers.dead_workers(house.home) as dead:
        for worker in dead:
            clear(_below(house.host, worker.directory))
            workers.forget(worker)
        return len(dead)


def test_without_a_pool_a_worker_boots_its_own(house: PoolHouse) -> None:
    began = time.monotonic()
    with house.taken() as sandbox:
        assert sandbox is None
    assert time.monotonic() - began < 1


def test_what_was_asked_for_is_booted_ahead(house: PoolHouse) -> None:
    house.start()
    with house.taken() as sandbox:
        assert sandbox is None
    house.until(lambda: house.idle() == 2)
    with house.taken() as sandbox:
        assert house.printed(sandbox, "echo warm") == b"warm\n"
    house.until(lambda: house.idle() == 2)


def test_a_pinned_image_is_warm_before_anybody_asked(house: PoolHouse) -> None:
    house.start(BOXER_POOL_PINNED=REFERENCE)
    house.until(lambda: house.status() == {"idle": 1, "runs": 0, "pinned_missing": 0})
    with house.taken() as sandbox:
        assert house.printed(sandbox, "echo first") == b"first\n"


def test_a_pinned_image_that_is_not_to_be_had_keeps_nobody_waiting(house: PoolHouse) -> None:
    house.start(BOXER_POOL_PINNED=f"boxer.local/missing:1,{REFERENCE}")
    house.until(lambda: house.status() == {"idle": 1, "runs": 0, "pinned_missing": 0})


def test_idle_sandboxes_burn_nothing(house: PoolHouse) -> None:
    house.start()
    house.warm()
    names = [path.name for path in (house.home / "workers").glob("*/warm-*")]
    assert house.host.hierarchy is not None
    cgroups = [house.host.hierarchy.cgroup(name) for name in names]
    before = [cgroup.cpu_ns() for cgroup in cgroups]
    time.sleep(1)
    assert len(cgroups) == 2
    assert [cgroup.cpu_ns() for cgroup in cgroups] == before


def test_one_not_used_for_long_goes(house: PoolHouse) -> None:
    house.start(BOXER_POOL_IDLE_SECS=2)
    house.warm()
    house.until(lambda: not list((house.home / "workers").glob("*/warm-*")))
    assert house.idle() == 0


def test_it_follows_demand_within_its_size(house: PoolHouse) -> None:
    house.start(BOXER_POOL_SIZE=3)
    house.warm(3)
    for _ in range(4):
        with house.taken(house.other):
            pass
    deadline = time.monotonic() + 20
    most = 0
    while time.monotonic() < deadline:
        most = max(most, house.idle())
        with house.taken(house.other) as sandbox:
            if sandbox is not None:
                break
        time.sleep(0.2)
    else:
        pytest.fail("the other image never became warm")
    house.until(lambda: house.idle() == 3)
    assert most <= 3


def test_it_keeps_within_its_memory(house: PoolHouse) -> None:
    house.start(BOXER_POOL_SIZE=4, BOXER_POOL_MEMORY_MB=100)
    house.warm(1)
    time.sleep(1.5)
    assert 1 <= house.idle() <= 3


def test_a_sandbox_goes_to_one_of_many_who_ask(house: PoolHouse) -> None:
    house.start()
    house.warm()
    got: list[str | None] = []
    barrier = threading.Barrier(8)
    done = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        with house.taken() as sandbox:
            got.append(sandbox.id if sandbox else None)
            done.wait()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [name for name in got if name]
    assert len(ids) == len(set(ids)) == 2


def test_nothing_is_booted_ahead_while_runs_want_the_cpus(house: PoolHouse) -> None:
    house.start()
    with ExitStack() as runs:
        for _ in range(os.cpu_count() or 1):
            runs.enter_context(house.taken())
        # One may have been under way when the first run came alone, but no second.
        time.sleep(3)
        assert house.idle() < 2
    house.until(lambda: house.idle() == 2)


def test_a_taken_sandbox_outlives_a_killed_pool(house: PoolHouse) -> None:
    house.start()
    house.warm()
    with house.taken() as sandbox:
        house.stop(signal.SIGKILL)
        assert house.printed(sandbox, "sleep 0.3; echo still here") == b"still here\n"
    assert _bury(house) == 1
    with house.taken() as sandbox:
        assert sandbox is None


def test_a_dead_takers_sandbox_is_found_in_its_directory(house: PoolHouse) -> None:
    house.start()
    house.warm()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        kernel.become_subreaper()
        taker = workers.register(house.home, "them")
        house.host = _below(house.host, taker.directory)
        with house.taken() as sandbox:
            os.write(writer, b"!" if sandbox else b"?")
            time.sleep(60)
        os._exit(0)
    assert os.read(reader, 1) == b"!"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert _bury(house) == 1
    house.until(lambda: house.idle() == 2)


def test_a_pool_that_does_not_answer_holds_nobody_up(house: PoolHouse) -> None:
    house.start()
    house.warm()
    assert house.process is not None
    house.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with house.taken() as sandbox:
        assert sandbox is None
    assert time.monotonic() - began < 2
    house.process.send_signal(signal.SIGCONT)
    # What it gives away too late goes: it is told that nobody takes it, or we find it with us.
    house.until(lambda: house.status() is not None)
    house.until(lambda: not list(house.host.directory.iterdir()))


def test_a_request_that_makes_no_sense_does_no_harm(house: PoolHouse) -> None:
    house.start()
    for nonsense in (b"{", b"[]", b'{"digest": 1}', b"x" * 4000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(house.socket))
            connection.send(nonsense)
            connection.settimeout(5)
            assert connection.recv(10) == b""
    house.warm()


def test_it_ends_clean(house: PoolHouse) -> None:
    house.start()
    house.warm()
    assert house.stop() == 0
    assert not house.socket.exists()
    assert _bury(house) == 0


USE_THEM = """
pwd
cat /new/deep/in.txt /top.txt
echo
ls /new /
echo x >> /new/deep/in.txt
rm -f /top.txt
"""


class TestInputs:
    def test_files_are_placed_in_a_sandbox_that_runs(self, house: PoolHouse) -> None:
        inputs = [
            file("new/deep/in.txt", b"new"),
            file("top.txt", b"top"),
        ]
        assert fits(house.image.rootfs, inputs, "/work/here")
        house.start()
        house.warm()
        with house.taken() as sandbox:
            assert sandbox is not None
            sandbox.place(house.image.rootfs, inputs, "/work/here")
            spec = run_spec(
                sandbox,
                ("sh", "-c", USE_THEM),
                cwd="/work/here",
            )
            result = sandbox.execute(spec, house.image.env)
        lines = result.stdout.decode().splitlines()
        assert lines[:2] == ["/work/here", "newtop"]
        assert "top.txt" in lines
        assert result.stderr.count(b"ermission denied") + result.stderr.count(b"ead-only") == 2

    @pytest.mark.parametrize(
        "path",
        ["tmp/in.txt", "linked/in.txt", "linked", "real/file", "etc/new"],
        ids=["under a mount", "through a link", "over a link", "over a file", "looked at"],
    )
    def test_what_does_not_fit_has_a_sandbox_booted_for_it(self, path: str, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real/file").touch()
        (tmp_path / "linked").symlink_to("real")
        assert not fits(tmp_path, [file(path)], "/")
        assert fits(tmp_path, [file("real/new")], "/")

    def test_a_working_directory_through_a_link_of_the_image_fits_only_if_it_is_there(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "linked").symlink_to("/real")
        assert fits(tmp_path, [], "/linked")
        assert not fits(tmp_path, [], "/linked/missing")
        assert fits(tmp_path, [], "/tmp/anywhere")

    def test_no_link_of_the_image_is_followed_on_the_host(
        self, house: PoolHouse, tmp_path: Path
    ) -> None:
        """A link that came to lie there after it was found to be a directory."""
        canary = tmp_path / "canary"
        canary.mkdir()
        house.start()
        house.warm()
        with house.taken() as sandbox:
            assert sandbox is not None
            merged = sandbox._rootfs.merged
            (merged / "trap").symlink_to(canary)
            with pytest.raises(Exception, match="trap"):
                sandbox.place(house.image.rootfs, [file("trap/in.txt")], "/")
        assert list(canary.iterdir()) == []
