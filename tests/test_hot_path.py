"""What a run costs in queries and processes stays as little as it is."""

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from executions import hosts, services, workers
from executions.actor import Actor
from executions.models import Execution, new_exec_id
from executions.runner import Runner
from executions.sandbox.spec import Limits
from filestore import services as filestore
from tests.test_pool import REFERENCE, PoolHouse, house

pytestmark = pytest.mark.django_db(transaction=True)
__all__ = ["house"]

HOST = "11111111-1111-1111-1111-111111111111"

_started: list[str] = []
_watched: set[int] = set()


def _note_process(event: str, _arguments: object) -> None:
    if event in {"subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec"} and (
        threading.get_ident() in _watched
    ):
        _started.append(event)


# An audit hook can't be taken away again, so there is one for good; see PEP 578.
sys.addaudithook(_note_process)


@contextmanager
def processes() -> Iterator[list[str]]:
    """The starts of host processes by this thread."""
    _started.clear()
    _watched.add(threading.get_ident())
    try:
        yield _started
    finally:
        _watched.discard(threading.get_ident())


@contextmanager
def queries() -> Iterator[CaptureQueriesContext]:
    connection.ensure_connection()
    with CaptureQueriesContext(connection) as captured:
        yield captured


def submit(owner: User, *files: str) -> str:
    exec_id = new_exec_id()
    limits = Limits(1.0, 64, 16, 5, 64)
    request = services.RunRequest(
        exec_id, REFERENCE, ("echo", "hi"), (), "/", files, "none", False, limits
    )
    services.submit(actor=Actor(owner.pk, owner.username), request=request)
    return exec_id


@pytest.fixture
def runner(house: PoolHouse, anonymous: User) -> Runner:
    hosts.started(host_id=HOST, name="here", workers=1, runsc_version="1")
    from executions.sandbox.images import ImageStore

    images = ImageStore(house.home / "images", size_limit=1 << 30, pull_timeout=30, tag_ttl=300)
    worker = workers.Worker(house.home, house.host.directory.name, HOST)
    return Runner(worker, house.host, images, house.socket)


def test_a_submission_takes_few_queries(house: PoolHouse, runner: Runner, anonymous: User) -> None:
    counts = []
    for _ in range(4):  # rules and quotas are read once in five seconds: by the first, or another
        with queries() as plain:
            submit(anonymous)
        counts.append(len(plain))
    # capacity, message, row, entry of the audit log and NOTIFY
    assert sorted(counts)[:2] == [1, 1], counts
    assert sum(counts) <= len(counts) + 2, "the two that are read again, and nothing else"
    filestore.store(owner_id=anonymous.pk, path="in.txt", source=io.BytesIO(b"x"))
    with queries() as with_file:
        submit(anonymous, "in.txt")
    assert len(with_file) <= 7, [query["sql"] for query in with_file]


def test_a_warm_run_starts_no_process_and_takes_few_queries(
    house: PoolHouse, runner: Runner, anonymous: User
) -> None:
    house.start()
    house.warm()
    exec_id = submit(anonymous)
    with queries() as captured, processes() as started:
        runner.run(exec_id)
    execution = Execution.objects.select_related("output").get(exec_id=exec_id)
    assert (execution.outcome, bytes(execution.output.stdout)) == ("exited", b"hi\n")
    assert execution.warm
    assert started == []
    # claim, start, end
    assert len(captured) == 3, [query["sql"] for query in captured]


def test_a_cold_run_starts_runsc_once(house: PoolHouse, runner: Runner, anonymous: User) -> None:
    exec_id = submit(anonymous)
    speaks_control = house.host.runsc.speaks_control()  # as a worker asks when it starts
    with processes() as started:
        runner.run(exec_id)
    assert not Execution.objects.get(exec_id=exec_id).warm
    # `runsc exec`, where the control socket isn't known, is another.
    assert len(started) == (1 if speaks_control else 2), started


def test_a_run_looks_at_no_directory_of_the_image(
    house: PoolHouse, runner: Runner, anonymous: User
) -> None:
    """However many files an image has, a warm run costs the same."""
    house.start()
    house.warm()
    exec_id = submit(anonymous)
    listed: list[str] = []
    rootfs = str(house.image.rootfs)

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event in {"os.listdir", "os.scandir"} and threading.get_ident() in _watched:
            listed.append(str(arguments[0]))

    sys.addaudithook(note)
    with processes():
        runner.run(exec_id)
    assert [path for path in listed if path.startswith(rootfs)] == []
    assert Path(rootfs).is_dir()
