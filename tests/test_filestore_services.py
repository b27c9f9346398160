"""The file store's services, on a real database, with contents on disk and in S3."""

import io
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import connection, connections, transaction

from filestore import services
from filestore.errors import BlobGone, FileMissing, StorageFailed
from filestore.models import Blob, StoredFile
from tests.fixtures_storage import StorageUnderTest

LONG = "/".join("".join(random.Random(part).choices("aöü日本語", k=80)) for part in range(16))
"""Over 2704 bytes that don't compress: more than a B-tree takes."""

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ann(transactional_db: None) -> User:
    return get_user_model().objects.create_user("ann")


@pytest.fixture
def ben(transactional_db: None) -> User:
    return get_user_model().objects.create_user("ben")


def store(owner: User, path: str, content: bytes) -> StoredFile:
    return services.store(owner_id=owner.pk, path=path, source=io.BytesIO(content))


def read(owner: User, path: str) -> bytes:
    stored = StoredFile.objects.visible_to(owner).at(path).select_related("blob").get()
    with services.open_file(stored_file=stored) as contents:
        return contents.read()


@contextmanager
def threads(count: int) -> Iterator[Callable[..., Future[None]]]:
    """Runs functions in threads, each with a connection of its own that is closed after it."""

    def run(function: Callable[..., object], *args: object) -> None:
        try:
            function(*args)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        yield lambda function, *args: pool.submit(run, function, *args)


@pytest.mark.parametrize("content", [b"", b"\0", b"hello\n", bytes(range(256)) * 4096])
def test_what_was_stored_is_read_back(storage: StorageUnderTest, ann: User, content: bytes) -> None:
    stored = store(ann, "a/b", content)
    assert (stored.path, stored.blob.size) == ("a/b", len(content))
    assert read(ann, "a/b") == content
    assert storage.objects() == {stored.blob.name}


def test_contents_are_stored_once_whoever_stores_them(
    storage: StorageUnderTest, ann: User, ben: User
) -> None:
    blobs = {store(owner, path, b"same").blob_id for owner in (ann, ben) for path in ("a", "b")}
    assert len(blobs) == len(storage.objects()) == 1
    assert StoredFile.objects.count() == 4


def test_contents_go_at_once_with_the_last_path_that_means_them(
    storage: StorageUnderTest, ann: User, ben: User
) -> None:
    store(ann, "a", b"one")
    store(ben, "b", b"one")
    store(ann, "a", b"two")
    assert (read(ann, "a"), read(ben, "b")) == (b"two", b"one")
    assert services.delete(owner_id=ben.pk, path="b")
    assert [blob.sha256 for blob in Blob.objects.all()] == [
        StoredFile.objects.select_related("blob").get().blob.sha256
    ]
    assert len(storage.objects()) == 1
    assert services.delete(owner_id=ann.pk, path="a")
    assert not storage.objects()
    assert not Blob.objects.exists()


def test_deleting_what_is_not_there_or_is_somebody_elses_does_nothing(
    storage: StorageUnderTest, ann: User, ben: User
) -> None:
    stored = store(ann, "a", b"one")
    assert not services.delete(owner_id=ben.pk, path="a")
    assert not services.delete(owner_id=ann.pk, path="b")
    assert not services.unlink(owner_id=ben.pk, path="a", blob_id=stored.blob_id)
    assert read(ann, "a") == b"one"


def test_unlink_leaves_a_path_that_means_something_else_by_now(
    storage: StorageUnderTest, ann: User
) -> None:
    before = store(ann, "a", b"before")
    store(ann, "a", b"after")
    assert not services.unlink(owner_id=ann.pk, path="a", blob_id=before.blob_id)
    assert read(ann, "a") == b"after"


@pytest.mark.parametrize(
    "path",
    [
        LONG,
        "\\x41",
        r"a\b\\c",
        "' OR 1=1 --",
        "%s",
    ],
    ids=lambda path: path[:12],
)
def test_any_clean_path_names_its_own_file(storage: StorageUnderTest, ann: User, path: str) -> None:
    store(ann, path, path.encode())
    store(ann, "A", b"another")
    assert read(ann, path) == path.encode()
    assert services.delete(owner_id=ann.pk, path=path)
    assert read(ann, "A") == b"another"


def test_twenty_uploads_of_the_same_contents_to_the_same_path_leave_one_file(
    storage: StorageUnderTest, ann: User
) -> None:
    with threads(20) as run:
        begun = [run(store, ann, "a", b"same" * 1000) for _ in range(20)]
    assert [future.exception() for future in begun] == [None] * 20
    assert StoredFile.objects.count() == 1
    assert [blob.state for blob in Blob.objects.all()] == ["ready"]
    assert storage.objects() == {Blob.objects.get().name}
    assert read(ann, "a") == b"same" * 1000


def test_twenty_different_uploads_to_one_path_leave_one_of_them_whole(
    storage: StorageUnderTest, ann: User
) -> None:
    contents = [str(number).encode() * 1000 for number in range(20)]
    with threads(20) as run:
        begun = [run(store, ann, "a", content) for content in contents]
    assert [future.exception() for future in begun] == [None] * 20
    assert read(ann, "a") in contents
    services.collect_garbage()
    assert storage.objects() == {Blob.objects.get().name}


def test_a_source_that_breaks_while_it_is_written_leaves_nothing(
    storage: StorageUnderTest, ann: User
) -> None:
    class Torn(io.BytesIO):
        """Ends in an error when it is read for the second time."""

        passes = 0

        def seek(self, offset: int, whence: int = 0, /) -> int:
            self.passes += offset == whence == 0
            return super().seek(offset, whence)

        def read(self, size: int | None = -1, /) -> bytes:
            if self.passes > 1 and self.tell() >= 64 << 10:
                raise OSError("no more")
            return super().read(size)

    store(ann, "a", b"before")
    with pytest.raises(StorageFailed):
        services.store(owner_id=ann.pk, path="a", source=Torn(b"x" * (1 << 20)))
    assert read(ann, "a") == b"before"
    assert storage.objects() == {Blob.objects.get().name}


def test_a_storage_that_fails_leaves_no_row_that_claims_to_be_ready(
    storage: StorageUnderTest, ann: User
) -> None:
    storage.break_it()
    with pytest.raises(StorageFailed) as caught:
        store(ann, "a", b"content")
    assert caught.value.message == "the storage didn't take the contents"
    assert not StoredFile.objects.exists()
    assert not Blob.objects.exclude(state="doomed").exists()
    storage.mend_it()
    store(ann, "a", b"content")
    services.collect_garbage()
    assert storage.objects() == {Blob.objects.get().name}


def test_storing_inside_a_transaction_is_refused(disk: StorageUnderTest, ann: User) -> None:
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        store(ann, "a", b"content")
    assert not disk.objects()


def test_contents_that_are_gone_are_not_opened_or_linked(
    storage: StorageUnderTest, ann: User
) -> None:
    blob = store(ann, "a", b"content").blob
    services.delete(owner_id=ann.pk, path="a")
    with pytest.raises(BlobGone):
        services.open_blob(blob=blob)
    with pytest.raises(BlobGone):
        services.link(owner_id=ann.pk, path="b", blob=blob)
    assert not StoredFile.objects.exists()


def test_contents_without_a_path_wait_for_their_link(storage: StorageUnderTest, ann: User) -> None:
    blob = services.store_blob(source=io.BytesIO(b"content"))
    assert services.collect_garbage() == 0
    assert services.discard_blobs(blob_ids=[blob.pk]) == 0
    services.link(owner_id=ann.pk, path="a", blob=blob)
    assert read(ann, "a") == b"content"


def test_ten_at_once_store_the_same_contents_without_a_path(
    disk: StorageUnderTest, ann: User
) -> None:
    with threads(10) as run:
        begun = [run(lambda: services.store_blob(source=io.BytesIO(b"same"))) for _ in range(10)]
    assert [future.exception() for future in begun] == [None] * 10
    assert len(disk.objects()) == Blob.objects.count() == 1


# ── References: what a run holds on to ───────────────────────────────────────────────────────────


def test_references_come_in_the_order_they_were_asked_for(
    disk: StorageUnderTest, ann: User
) -> None:
    for path in ("a", "b", "output/boxer-1/c"):
        store(ann, path, path.encode())
    paths = ["output/boxer-1/c", "a", "b", "a"]
    with transaction.atomic():
        found = services.references(owner_id=ann.pk, paths=paths)
    assert [file.path for file in found] == paths
    assert [file.blob.size for file in found] == [16, 1, 1, 1]
    with transaction.atomic():
        assert services.references(owner_id=ann.pk, paths=[]) == []


def test_every_missing_file_is_named_and_somebody_elses_is_missing(
    disk: StorageUnderTest, ann: User, ben: User
) -> None:
    store(ann, "a", b"a")
    store(ben, "b", b"b")
    with pytest.raises(FileMissing) as caught, transaction.atomic():
        services.references(owner_id=ann.pk, paths=["z", "a", "b", "z"])
    assert caught.value.paths == ("z", "b")
    assert caught.value.message == "no such file: z, b"


def test_a_file_deleted_while_a_run_refers_to_it_keeps_its_contents(
    storage: StorageUnderTest, ann: User
) -> None:
    store(ann, "a", b"content")
    with threads(1) as run:
        with transaction.atomic():
            [held] = services.references(owner_id=ann.pk, paths=["a"])
            deleting = run(lambda: services.delete(owner_id=ann.pk, path="a"))
            wait_until_somebody_waits_for_a_lock()
            services.link(owner_id=ann.pk, path="kept", blob=held.blob)
        deleting.result(timeout=10)
    assert not StoredFile.objects.at("a").exists()
    assert read(ann, "kept") == b"content"


def test_a_file_deleted_while_a_run_looks_at_it_goes_when_the_run_lets_go(
    storage: StorageUnderTest, ann: User
) -> None:
    store(ann, "a", b"content")
    with threads(1) as run:
        with transaction.atomic():
            services.references(owner_id=ann.pk, paths=["a"])
            deleting = run(lambda: services.delete(owner_id=ann.pk, path="a"))
            wait_until_somebody_waits_for_a_lock()
            assert len(storage.objects()) == 1
        deleting.result(timeout=10)
    assert not storage.objects()


def test_many_runs_can_refer_to_one_file_at_the_same_time(
    disk: StorageUnderTest, ann: User
) -> None:
    store(ann, "a", b"content")
    together = threading.Barrier(4, timeout=10)

    def refer() -> None:
        with transaction.atomic():
            services.references(owner_id=ann.pk, paths=["a"])
            together.wait()  # All four are inside their transactions here.

    with threads(4) as run:
        begun = [run(refer) for _ in range(4)]
    assert [future.exception() for future in begun] == [None] * 4


def wait_until_somebody_waits_for_a_lock() -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    for _ in range(200):
        with connection.cursor() as cursor:
            cursor.execute(waiting)
            if cursor.fetchone()[0]:
                return
            cursor.execute("SELECT pg_sleep(0.02)")
    pytest.fail("nobody waits for a lock")
