"""Garbage of the file store: what nothing refers to goes, what something refers to never does."""

import hashlib
import io
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import connections
from django.utils import timezone

from executions.models import Execution, ExecutionInput
from filestore import services
from filestore.errors import StorageFailed
from filestore.models import Blob, StoredFile
from tests.fixtures_storage import StorageUnderTest

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ann(transactional_db: None) -> User:
    return get_user_model().objects.create_user("ann")


def store(owner: User, path: str, content: bytes) -> StoredFile:
    return services.store(owner_id=owner.pk, path=path, source=io.BytesIO(content))


def left_behind(storage: StorageUnderTest, content: bytes, state: str, *, hours: float) -> Blob:
    """The row and the object that a process left when it was killed `hours` ago."""
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"blobs/{sha256[:2]}/{sha256}-left"
    blob = Blob.objects.create(sha256=sha256, size=len(content), name=name, state=state)
    Blob.objects.filter(pk=blob.pk).update(created_at=timezone.now() - timedelta(hours=hours))
    storage.put(name, content)
    return blob


def an_execution(owner: User) -> Execution:
    return Execution.objects.create(
        owner=owner,
        image="busybox",
        cmd=["true"],
        cpu_cores=1,
        memory_mb=64,
        pids_limit=16,
        wall_clock_secs=5,
        nofile=64,
    )


def test_what_an_execution_refers_to_outlives_its_path(
    storage: StorageUnderTest, ann: User
) -> None:
    blob = store(ann, "a", b"input").blob
    held = ExecutionInput.objects.create(
        execution=an_execution(ann), path="a", sha256=blob.sha256, size=blob.size, blob=blob
    )
    assert services.delete(owner_id=ann.pk, path="a")
    assert services.discard_blobs(blob_ids=[blob.pk]) == 0
    assert services.collect_garbage() == 0
    with services.open_blob(blob=blob) as contents:
        assert contents.read() == b"input"

    ExecutionInput.objects.filter(pk=held.pk).update(blob=None)
    assert services.discard_blobs(blob_ids=[blob.pk]) == 1
    assert not storage.objects()


@pytest.mark.parametrize(
    ("state", "hours"), [("writing", 1.1), ("doomed", 0), ("doomed", 48), ("ready", 0)]
)
def test_leftovers_of_a_killed_process_are_removed(
    storage: StorageUnderTest, ann: User, state: str, hours: float
) -> None:
    left_behind(storage, b"left", state, hours=hours)
    kept = store(ann, "a", b"kept").blob
    assert services.collect_garbage() == 1
    assert storage.objects() == {kept.name}
    assert list(Blob.objects.all()) == [kept]


def test_contents_that_are_being_written_are_left_alone(
    storage: StorageUnderTest, ann: User
) -> None:
    blob = left_behind(storage, b"now", "writing", hours=0.9)
    assert services.collect_garbage() == 0
    assert storage.objects() == {blob.name}


def test_a_row_whose_object_is_missing_goes_too(storage: StorageUnderTest, ann: User) -> None:
    Blob.objects.create(sha256="0" * 64, size=1, name="blobs/00/never-written", state="doomed")
    assert services.collect_garbage() == 1
    assert not Blob.objects.exists()


def test_contents_stored_without_a_path_go_when_nobody_came_for_them(
    disk: StorageUnderTest, ann: User
) -> None:
    blob = services.store_blob(source=io.BytesIO(b"content"))
    minutes = (blob.kept_until or timezone.now()) - timezone.now()
    assert timedelta(minutes=9) < minutes <= timedelta(minutes=10)
    Blob.objects.update(kept_until=timezone.now() - timedelta(seconds=1))
    assert services.collect_garbage() == 1
    assert not disk.objects()


def test_old_contents_stored_again_without_a_path_are_kept_for_whoever_did(
    disk: StorageUnderTest, ann: User
) -> None:
    store(ann, "a", b"content")
    blob = services.store_blob(source=io.BytesIO(b"content"))
    services.delete(owner_id=ann.pk, path="a")
    assert services.collect_garbage() == 0
    assert services.link(owner_id=ann.pk, path="b", blob=blob).blob_id == blob.pk


def test_the_batch_is_bounded(disk: StorageUnderTest, ann: User) -> None:
    for number in range(5):
        left_behind(disk, str(number).encode(), "ready", hours=2)
    assert [services.collect_garbage(limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert not disk.objects()


def test_an_object_that_cannot_be_deleted_is_tried_again(
    disk: StorageUnderTest, ann: User, caplog: pytest.LogCaptureFixture
) -> None:
    store(ann, "a", b"content")
    disk.break_it()
    assert services.delete(owner_id=ann.pk, path="a")
    assert not StoredFile.objects.exists()
    assert [blob.state for blob in Blob.objects.all()] == ["doomed"]
    assert "tried again later" in caplog.text
    disk.mend_it()
    assert services.collect_garbage() == 1
    assert not Blob.objects.exists()


def test_a_writer_that_was_given_up_as_dead_leaves_nothing_when_it_comes_back(
    storage: StorageUnderTest, ann: User
) -> None:
    class Slow(io.BytesIO):
        """While it is written, an hour goes by and the garbage is collected."""

        passes = 0

        def seek(self, offset: int, whence: int = 0, /) -> int:
            self.passes += offset == whence == 0
            if self.passes == 2:
                Blob.objects.update(created_at=timezone.now() - timedelta(hours=2))
                services.collect_garbage()
            return super().seek(offset, whence)

    with pytest.raises(StorageFailed, match="given up"):
        services.store(owner_id=ann.pk, path="a", source=Slow(b"content"))
    assert not storage.objects()
    assert not Blob.objects.exists()
    assert not StoredFile.objects.exists()


def test_nothing_is_lost_and_nothing_is_left_when_everything_happens_at_once(
    disk: StorageUnderTest, ann: User
) -> None:
    contents, paths = [b"one", b"two", b"three"], ["a", "b", "c", "d"]

    def upload_and_delete(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(25):
            path = chance.choice(paths)
            if chance.random() < 0.6:
                store(ann, path, chance.choice(contents))
            else:
                services.delete(owner_id=ann.pk, path=path)

    def collect(_: int) -> None:
        for _ in range(25):
            services.collect_garbage()

    def in_thread(function: Callable[[int], None], seed: int) -> None:
        try:
            function(seed)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(in_thread, upload_and_delete, seed) for seed in range(5)]
        jobs.append(pool.submit(in_thread, collect, 0))
    assert [job.exception() for job in jobs] == [None] * 6

    for stored in StoredFile.objects.select_related("blob"):
        with services.open_file(stored_file=stored) as file:
            assert file.read() in contents
    services.collect_garbage()
    linked = set(StoredFile.objects.values_list("blob__name", flat=True))
    assert disk.objects() == linked == set(Blob.objects.values_list("name", flat=True))
