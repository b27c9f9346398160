"""Where an execution stands: who may move it, once, and what moves with it."""

import io
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.utils import timezone
from django_q.models import OrmQ
from django_q.signing import SignedPackage

from executions import hosts, services
from executions.actor import Actor
from executions.errors import InputNotFound, NetworkUnavailable, NoWorker, QueueFull
from executions.models import Execution, Outcome, Status, WorkerHost, new_exec_id
from executions.sandbox.spec import Limits
from executions.services import Ending, RunRequest
from filestore import services as filestore
from filestore.models import Blob, StoredFile

pytestmark = pytest.mark.django_db(transaction=True)

HOST = str(uuid.uuid4())
ENDED = Ending(outcome=Outcome.EXITED, exit_code=0, stdout=b"\x00\xff", stderr=b"", wall_ms=1)


def request(**changes: object) -> RunRequest:
    values: dict[str, object] = {
        "exec_id": new_exec_id(),
        "image": "busybox",
        "cmd": ("true",),
        "env": (),
        "cwd": "/",
        "files": (),
        "network": "none",
        "persist": False,
        "limits": Limits(1.0, 64, 16, 5, 64),
    }
    return RunRequest(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def host() -> None:
    hosts.started(host_id=HOST, name="here", workers=2, runsc_version="1")


@pytest.fixture
def submit(anonymous: User, host: None) -> Callable[..., str]:
    def submit(**changes: object) -> str:
        asked = request(**changes)
        services.submit(actor=Actor(anonymous.pk, anonymous.username), request=asked)
        return asked.exec_id

    return submit


def claim(exec_id: str, worker: str = "w1") -> Execution:
    claimed = services.claim(exec_id=exec_id, host_id=HOST, worker=worker)
    assert claimed is not None
    return claimed


def test_a_run_and_its_message_commit_together(submit: Callable[..., str]) -> None:
    exec_id = submit()
    execution = Execution.objects.get(exec_id=exec_id)
    message = OrmQ.objects.get(pk=execution.message_id)
    assert SignedPackage.loads(message.payload)["args"] == (exec_id,)
    assert execution.status == Status.QUEUED


def test_without_a_live_worker_nothing_is_accepted(anonymous: User) -> None:
    with pytest.raises(NoWorker):
        services.submit(actor=Actor(anonymous.pk, anonymous.username), request=request())
    hosts.started(host_id=HOST, name="here", workers=1, runsc_version="1")
    WorkerHost.objects.update(seen_at=timezone.now() - timedelta(minutes=1))
    with pytest.raises(NoWorker):
        services.submit(actor=Actor(anonymous.pk, anonymous.username), request=request())
    hosts.alive(host_id=HOST)
    services.submit(actor=Actor(anonymous.pk, anonymous.username), request=request())
    hosts.stopped(host_id=HOST)
    with pytest.raises(NoWorker):
        services.submit(actor=Actor(anonymous.pk, anonymous.username), request=request())
    assert Execution.objects.count() == OrmQ.objects.count() == 1


def test_a_full_queue_says_so(submit: Callable[..., str], settings: pytest.FixtureRequest) -> None:
    settings.BOXER_QUEUE_LIMIT = 2  # type: ignore[attr-defined]
    first = submit()
    submit()
    with pytest.raises(QueueFull, match="2 runs are waiting"):
        submit()
    claim(first)
    submit()


def test_the_sandbox_network_is_refused_where_a_living_host_lacks_it(
    submit: Callable[..., str],
) -> None:
    assert submit(network="sandbox")
    another = "22222222-2222-2222-2222-222222222222"
    lack = "the CNI plugin bridge is nowhere"
    hosts.started(host_id=another, name="there", workers=1, runsc_version="1", network_lack=lack)
    with pytest.raises(NetworkUnavailable, match=lack):
        submit(network="sandbox")
    assert submit(network="none")
    hosts.stopped(host_id=another)
    assert submit(network="sandbox")


def test_a_missing_input_is_named_and_nothing_is_queued(submit: Callable[..., str]) -> None:
    with pytest.raises(InputNotFound, match=r"no/such\.txt"):
        submit(files=("no/such.txt",))
    assert not Execution.objects.exists()
    assert not OrmQ.objects.exists()


def test_a_message_that_comes_twice_runs_once(submit: Callable[..., str]) -> None:
    exec_id = submit()
    assert services.claim(exec_id=exec_id, host_id=HOST, worker="w1") is not None
    assert services.claim(exec_id=exec_id, host_id=HOST, worker="w2") is None
    assert not OrmQ.objects.exists()


def test_twenty_workers_at_once_get_one_claim(submit: Callable[..., str]) -> None:
    exec_id = submit()
    won: list[str] = []
    barrier = threading.Barrier(20)

    def contend(number: int) -> None:
        barrier.wait()
        if services.claim(exec_id=exec_id, host_id=HOST, worker=f"w{number}"):
            won.append(f"w{number}")
        connections.close_all()

    threads = [threading.Thread(target=contend, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert Execution.objects.get(exec_id=exec_id).worker == won[0]


def test_a_claim_may_be_repeated_by_who_has_it(submit: Callable[..., str]) -> None:
    execution = claim(submit())
    again = claim(execution.exec_id)
    assert services.start(execution=again, image_digest="sha256:1", pull_ms=0, start_ms=0)
    assert services.start(execution=again, image_digest="sha256:1", pull_ms=0, start_ms=0)
    assert services.claim(exec_id=execution.exec_id, host_id=HOST, worker="w1") is None


def test_an_end_is_written_once_and_keeps_every_byte(submit: Callable[..., str]) -> None:
    execution = claim(submit())
    assert services.finish(execution=execution, ending=ENDED)
    assert not services.finish(execution=execution, ending=Ending(outcome=Outcome.TIMED_OUT))
    row = Execution.objects.select_related("output").get(pk=execution.pk)
    assert row.status == Status.FINISHED
    assert row.outcome == Outcome.EXITED
    assert bytes(row.output.stdout) == b"\x00\xff"


def test_an_end_wakes_who_listens(submit: Callable[..., str]) -> None:
    execution = claim(submit())
    with connection.cursor() as cursor:
        cursor.execute("LISTEN boxer_ended")
    services.finish(execution=execution, ending=ENDED)
    assert connection.connection is not None
    payloads = [n.payload for n in connection.connection.notifies(timeout=5, stop_after=1)]
    assert payloads == [execution.exec_id]


def test_a_withdrawn_run_never_starts(submit: Callable[..., str]) -> None:
    exec_id = submit()
    assert services.withdraw(exec_id=exec_id)
    assert not services.withdraw(exec_id=exec_id)
    assert services.claim(exec_id=exec_id, host_id=HOST, worker="w1") is None
    assert not OrmQ.objects.exists()
    assert Execution.objects.get(exec_id=exec_id).status == Status.CANCELLED


def test_a_claimed_run_is_not_withdrawn(submit: Callable[..., str]) -> None:
    execution = claim(submit())
    assert not services.withdraw(exec_id=execution.exec_id)


class TestDeadWorkers:
    def test_what_had_not_started_is_queued_again(self, submit: Callable[..., str]) -> None:
        lost = claim(submit())
        other = claim(submit(), worker="w2")
        assert services.reap_worker(host_id=HOST, worker="w1") == 1
        again = Execution.objects.get(pk=lost.pk)
        assert again.status == Status.QUEUED
        assert OrmQ.objects.filter(pk=again.message_id).exists()
        assert Execution.objects.get(pk=other.pk).status == Status.PULLING
        assert claim(lost.exec_id, worker="w3").attempts == 2

    def test_it_is_not_tried_for_ever(self, submit: Callable[..., str]) -> None:
        exec_id = submit()
        for _ in range(services.MOST_ATTEMPTS):
            claim(exec_id)
            services.reap_worker(host_id=HOST, worker="w1")
        row = Execution.objects.get(exec_id=exec_id)
        assert (row.status, row.outcome, row.error_code) == ("finished", "infra_error", "lost")

    def test_what_had_started_ends_as_ours(self, submit: Callable[..., str]) -> None:
        lost = claim(submit())
        services.start(execution=lost, image_digest="sha256:1", pull_ms=0, start_ms=0)
        services.reap_worker(host_id=HOST, worker="w1")
        row = Execution.objects.get(pk=lost.pk)
        assert row.outcome == Outcome.INFRA_ERROR
        assert row.exit_code is None
        assert "worker died" in row.error
        # A worker that comes back from a long sleep can't overwrite that.
        assert not services.finish(execution=lost, ending=ENDED)

    def test_a_dead_workers_late_word_does_not_end_the_second_attempt(
        self, submit: Callable[..., str]
    ) -> None:
        first = claim(submit())
        services.reap_worker(host_id=HOST, worker="w1")
        second = claim(first.exec_id, worker="w2")
        assert not services.start(execution=first, image_digest="x", pull_ms=0, start_ms=0)
        assert not services.finish(execution=first, ending=ENDED)
        assert services.finish(execution=second, ending=ENDED)

    @pytest.mark.parametrize("how", ["stopped", "silent"])
    def test_a_lost_host_takes_nothing_along(self, submit: Callable[..., str], how: str) -> None:
        lost = claim(submit())
        assert services.reap_lost_hosts() == 0
        if how == "stopped":
            hosts.stopped(host_id=HOST)
        else:
            WorkerHost.objects.update(seen_at=timezone.now() - timedelta(minutes=2))
        assert services.reap_lost_hosts() == 1
        assert Execution.objects.get(pk=lost.pk).status == Status.QUEUED


class TestInputs:
    @pytest.fixture
    def stored(self, anonymous: User) -> StoredFile:
        return filestore.store(owner_id=anonymous.pk, path="in.txt", source=io.BytesIO(b"one"))

    def test_a_run_holds_its_contents_whatever_happens_to_the_path(
        self, submit: Callable[..., str], stored: StoredFile, anonymous: User
    ) -> None:
        exec_id = submit(files=("in.txt",))
        filestore.store(owner_id=anonymous.pk, path="in.txt", source=io.BytesIO(b"two"))
        filestore.delete(owner_id=anonymous.pk, path="in.txt")
        filestore.collect_garbage()
        held = Execution.objects.get(exec_id=exec_id).inputs.select_related("blob").get()
        assert held.blob is not None
        with filestore.open_blob(blob=held.blob) as contents:
            assert contents.read() == b"one"

    def test_without_persist_inputs_are_gone_with_the_end(
        self, submit: Callable[..., str], stored: StoredFile
    ) -> None:
        services.finish(execution=claim(submit(files=("in.txt",))), ending=ENDED)
        assert not StoredFile.objects.exists()
        assert not Blob.objects.exists()

    def test_two_runs_that_share_an_input_both_have_it(
        self, submit: Callable[..., str], stored: StoredFile
    ) -> None:
        first, second = submit(files=("in.txt",)), submit(files=("in.txt",))
        services.finish(execution=claim(first), ending=ENDED)
        held = claim(second, worker="w2").inputs.select_related("blob").get()
        assert held.blob is not None
        with filestore.open_blob(blob=held.blob) as contents:
            assert contents.read() == b"one"

    def test_what_was_uploaded_anew_meanwhile_stays(
        self, submit: Callable[..., str], stored: StoredFile, anonymous: User
    ) -> None:
        execution = claim(submit(files=("in.txt",)))
        filestore.store(owner_id=anonymous.pk, path="in.txt", source=io.BytesIO(b"one"))
        services.finish(execution=execution, ending=ENDED)
        assert StoredFile.objects.filter(path="in.txt").exists()

    def test_with_persist_inputs_stay(self, submit: Callable[..., str], stored: StoredFile) -> None:
        services.finish(execution=claim(submit(files=("in.txt",), persist=True)), ending=ENDED)
        assert StoredFile.objects.filter(path="in.txt").exists()

    def test_a_withdrawn_run_lets_go_of_its_contents(
        self, submit: Callable[..., str], stored: StoredFile, anonymous: User
    ) -> None:
        exec_id = submit(files=("in.txt",))
        filestore.delete(owner_id=anonymous.pk, path="in.txt")
        assert Blob.objects.exists()
        services.withdraw(exec_id=exec_id)
        assert not Blob.objects.exists()


def test_old_hosts_are_forgotten_when_nothing_names_them(submit: Callable[..., str]) -> None:
    claim(submit())
    unused = WorkerHost.objects.create(
        name="old", workers=1, seen_at=timezone.now() - timedelta(days=8)
    )
    WorkerHost.objects.filter(pk=HOST).update(seen_at=timezone.now() - timedelta(days=8))
    hosts.forget_old()
    assert not WorkerHost.objects.filter(pk=unused.pk).exists()
    assert WorkerHost.objects.filter(pk=HOST).exists()
