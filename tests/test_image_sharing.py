"""One image store, many who use it at once, some of whom give up or are killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from executions.sandbox.images import ImageError, ImageInUse, ImageNotFound, ImageStore, PullTimeout
from tests.lying_registry import LyingRegistry
from tests.made_images import busybox_image

HOLD = """
import sys
from pathlib import Path
from executions.sandbox.images import ImageStore
store = ImageStore(Path(sys.argv[1]), size_limit=64 << 20, pull_timeout=30, tag_ttl=300)
with store.hold(sys.argv[2]) as image:
    print(image.digest, flush=True)
    sys.stdin.read()
"""


def start(store: ImageStore, reference: str) -> subprocess.Popen[str]:
    """A process that holds an image until its stdin closes."""
    argv = [sys.executable, "-c", HOLD, str(store.root), reference]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def hold(store: ImageStore, reference: str) -> str:
    with store.hold(reference) as image:
        assert (image.rootfs / "bin/busybox").stat().st_size > 500_000
        return image.digest


def wait_until(there: object, within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not there():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def app(lying_registry: LyingRegistry, tmp_path: Path) -> str:
    lying_registry.serve(busybox_image(tmp_path / "image"), "app")
    lying_registry.serve(busybox_image(tmp_path / "image"), "app", "other")
    return f"{lying_registry.address}/app:latest"


def layer_path(registry: LyingRegistry) -> str:
    blobs = [path for path in registry.answers if "/blobs/" in path]
    return max(blobs, key=lambda path: len(registry.answers[path][1]))


def test_many_processes_and_threads_pull_an_image_once(
    store: ImageStore, lying_registry: LyingRegistry, app: str
) -> None:
    processes = [start(store, app) for _ in range(4)]
    other = app.replace("latest", "other")
    with ThreadPoolExecutor(12) as pool:
        digests = list(pool.map(lambda n: hold(store, app if n % 2 else other), range(24)))
    for process in processes:
        digests.append(process.communicate(timeout=20)[0].strip())
        assert process.returncode == 0
    assert len(set(digests)) == 1
    assert lying_registry.downloads() == 2  # The layer and the configuration.
    assert list((store.root / "work").iterdir()) == []
    assert list((store.root / "attempts").iterdir()) == []


def test_those_who_wait_share_a_failure_and_who_comes_later_does_not(
    store: ImageStore, lying_registry: LyingRegistry, app: str
) -> None:
    path = "/v2/app/manifests/latest"
    good = lying_registry.answers[path]
    lying_registry.answers[path] = (404, b"{}")
    lying_registry.hanging.add(path)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(hold, store, app) for _ in range(8)]
        lying_registry.reached.wait(10)
        time.sleep(0.5)
        lying_registry.release.set()
        for future in waiting:
            assert isinstance(future.exception(timeout=20), ImageNotFound)
    assert lying_registry.asked[path] == 1
    lying_registry.answers[path] = good
    assert hold(store, app)


def test_who_gives_up_leaves_the_image_to_the_others(
    store: ImageStore, lying_registry: LyingRegistry, app: str
) -> None:
    lying_registry.hanging.add(layer_path(lying_registry))
    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        with pytest.raises(PullTimeout), store.hold(app, timeout=0.7):
            pass
        assert time.monotonic() - started < 3
        patient = pool.submit(hold, store, app)
        wait_until(lambda: list((store.root / "work").iterdir()))
        started = time.monotonic()
        with pytest.raises(PullTimeout), store.hold(app, timeout=0.3):
            pass  # Another does the pulling: this one only waits, and no longer than it said.
        assert time.monotonic() - started < 2
        lying_registry.release.set()
        assert patient.result(timeout=20).startswith("sha256:")
    assert list((store.root / "work").iterdir()) == []


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def test_a_pull_that_is_killed_leaves_no_process_and_the_next_one_works(
    store: ImageStore, lying_registry: LyingRegistry, app: str
) -> None:
    lying_registry.hanging.add(layer_path(lying_registry))
    process = start(store, app)
    assert lying_registry.reached.wait(20)
    tools = children_of(process.pid)
    assert [tool.name() for tool in tools] == ["skopeo"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(hold, store, app)
        time.sleep(0.3)
        assert store.clear_leftovers() == 0  # What is alive is left alone.
        lying_registry.hanging.clear()
        process.kill()
        process.communicate()
        assert waiting.result(timeout=20).startswith("sha256:")
    wait_until(lambda: not any(tool.is_running() and tool.status() != "zombie" for tool in tools))
    assert len(list((store.root / "work").iterdir())) == 1
    assert store.clear_leftovers() == 1
    assert list((store.root / "work").iterdir()) == []
    assert hold(store, app)


@pytest.mark.parametrize("moment", [0.02, 0.06, 0.1, 0.14, 0.2])
def test_a_pull_that_is_killed_at_any_moment_harms_nothing(
    store: ImageStore, app: str, moment: float
) -> None:
    process = start(store, app)
    wait_until(store.root.exists)
    time.sleep(moment)
    process.kill()
    process.communicate()
    digest = hold(store, app)
    store.clear_leftovers()
    assert [image.digest for image in store.list_images()] == [digest]
    assert list((store.root / "work").iterdir()) == []
    assert list((store.root / "attempts").iterdir()) == []


def test_an_image_is_free_when_the_process_that_held_it_is_killed(
    store: ImageStore, app: str
) -> None:
    process = start(store, app)
    assert process.stdout
    process.stdout.readline()
    with pytest.raises(ImageInUse):
        store.remove(app)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    store.remove(app)
    assert store.list_images() == []


def test_a_child_that_was_forked_meanwhile_does_not_keep_an_image(
    store: ImageStore, app: str
) -> None:
    forks = multiprocessing.get_context("fork")
    event = forks.Event()
    with store.hold(app):
        child = forks.Process(target=event.wait, args=(20,))
        child.start()
    store.remove(app)
    assert child.is_alive()
    event.set()
    child.join(20)


def test_images_are_used_and_removed_at_once_without_one_vanishing_from_under_a_run(
    store: ImageStore, app: str
) -> None:
    done = threading.Event()

    def prune() -> int:
        removed = 0
        while not done.is_set():
            removed += len(store.prune(0))
            time.sleep(0.1)  # a pull may take as long on a busy machine
        return removed

    def use(_: int) -> str:
        with store.hold(app) as image:
            for _ in range(5):
                assert len(os.listdir(image.rootfs)) == 6  # noqa: PTH208
                time.sleep(0.002)
        time.sleep(0.03)
        return image.digest

    with ThreadPoolExecutor(3) as pool:
        pruning = pool.submit(prune)
        try:
            digests = set(pool.map(use, range(60)))
        finally:
            done.set()
        assert len(digests) == 1
        assert pruning.result(timeout=20) > 0


def test_the_code_of_every_error_is_its_own() -> None:
    kinds = ImageError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds) == 5
