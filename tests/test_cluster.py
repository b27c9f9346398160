"""The cluster's joints: what is killed with -9 takes nothing of the others along."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executions.cluster.primitives import (
    MESSAGE_BYTES,
    Mailbox,
    PipeEvent,
    Rendezvous,
    Timer,
    deliver,
)


def fork(target: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            target()
        finally:
            os._exit(0)
    return pid


def end(pid: int, signum: int = signal.SIGKILL) -> None:
    os.kill(pid, signum)
    os.waitpid(pid, 0)


class TestPipeEvent:
    def test_it_is_set_once_and_for_all_processes(self) -> None:
        event = PipeEvent()
        assert not event.is_set()
        os.waitpid(fork(event.set), 0)
        assert event.is_set()
        assert event.wait(0)

    def test_setting_it_often_never_blocks(self) -> None:
        event = PipeEvent()
        for _ in range(100_000):
            event.set()
        assert event.is_set()

    def test_a_waiter_that_is_killed_holds_nobody_up(self) -> None:
        event = PipeEvent()
        waiter = fork(event.wait)
        time.sleep(0.1)
        end(waiter)
        event.set()
        assert event.wait(1)


class TestMailbox:
    @pytest.fixture
    def box(self) -> Iterator[Mailbox]:
        mailbox = Mailbox()
        yield mailbox
        mailbox.close()

    def test_messages_arrive_whole_and_in_order(self, box: Mailbox) -> None:
        assert box.empty()
        for number in range(5):
            box.put({"number": number})
        assert [box.get()["number"] for _ in range(5)] == list(range(5))

    def test_a_result_too_long_keeps_its_end(self, box: Mailbox) -> None:
        box.put({"id": "x", "result": "a" * MESSAGE_BYTES + "the end", "args": (), "kwargs": {}})
        received = box.get()
        assert received["result"].endswith("the end")
        assert len(received["result"]) < MESSAGE_BYTES

    def test_writers_killed_at_any_moment_leave_whole_messages(self, box: Mailbox) -> None:

        def flood() -> None:
            while True:
                box.put({"result": "b" * 5000})

        for _ in range(5):
            pid = fork(flood)
            for _ in range(20):
                assert len(box.get()["result"]) == 5000
            end(pid)
        while not box.empty():
            assert len(box.get()["result"]) == 5000


class TestRendezvous:
    @pytest.fixture
    def stop(self) -> PipeEvent:
        return PipeEvent()

    @pytest.fixture
    def tasks(self, tmp_path: Path, stop: PipeEvent) -> Iterator[Rendezvous]:
        rendezvous = Rendezvous(tmp_path / "s", stop, backlog=8)
        yield rendezvous
        rendezvous.close()

    def test_only_its_owner_may_connect(self, tasks: Rendezvous, tmp_path: Path) -> None:
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600

    def test_a_message_goes_to_a_worker_that_waits(self, tasks: Rendezvous) -> None:
        got: list[bytes | None] = []
        worker = threading.Thread(target=lambda: got.append(tasks.message(PipeEvent())))
        worker.start()
        connection = tasks.idle_worker(5)
        assert connection is not None
        assert deliver(connection, b"do this")
        worker.join(5)
        assert got == [b"do this"]

    def test_without_an_idle_worker_there_is_nothing_to_take(self, tasks: Rendezvous) -> None:
        assert tasks.idle_worker(0.05) is None

    def test_a_worker_that_died_waiting_gets_no_message(self, tasks: Rendezvous) -> None:
        worker = fork(lambda: tasks.message(PipeEvent()))
        connection = tasks.idle_worker(5)
        assert connection is not None
        end(worker)
        assert not deliver(connection, b"lost?")

    def test_killing_an_idle_worker_leaves_the_others_working(self, tasks: Rendezvous) -> None:
        for _ in range(3):
            end_after_connecting(tasks)
        got: list[bytes | None] = []
        worker = threading.Thread(target=lambda: got.append(tasks.message(PipeEvent())))
        worker.start()
        for _ in range(4):
            connection = tasks.idle_worker(5)
            assert connection is not None
            if deliver(connection, b"still here"):
                break
        worker.join(5)
        assert got == [b"still here"]

    def test_workers_keep_their_place_when_the_pusher_is_killed(self, tasks: Rendezvous) -> None:
        got: list[bytes | None] = []
        worker = threading.Thread(target=lambda: got.append(tasks.message(PipeEvent())))
        worker.start()
        in_hand, ours = socket.socketpair()

        def pusher() -> None:
            connection = tasks.idle_worker(5)
            ours.sendall(b"got it")
            time.sleep(60)
            assert connection

        pid = fork(pusher)
        with in_hand, ours:
            assert in_hand.recv(10) == b"got it"
        end(pid)
        # Its worker comes back by itself, to whoever is the pusher now.
        connection = tasks.idle_worker(5)
        assert connection is not None
        assert deliver(connection, b"from the new one")
        worker.join(5)
        assert got == [b"from the new one"]

    @pytest.mark.parametrize("who", ["everybody", "this worker"])
    def test_a_stop_ends_the_wait(self, tasks: Rendezvous, stop: PipeEvent, who: str) -> None:
        interrupted = PipeEvent()
        got: list[bytes | None] = []
        worker = threading.Thread(target=lambda: got.append(tasks.message(interrupted)))
        worker.start()
        time.sleep(0.05)
        (stop if who == "everybody" else interrupted).set()
        worker.join(5)
        assert got == [None]


def end_after_connecting(tasks: Rendezvous) -> None:
    worker = fork(lambda: tasks.message(PipeEvent()))
    time.sleep(0.05)
    end(worker)


def test_a_timer_is_shared_and_its_lock_dies_with_nobody() -> None:
    timer = Timer()
    assert timer.value == -1

    def hold() -> None:
        with timer.get_lock():
            timer.value = 7.5
            time.sleep(60)

    pid = fork(hold)
    deadline = time.monotonic() + 5
    while timer.value != 7.5 and time.monotonic() < deadline:
        time.sleep(0.01)
    end(pid)
    with timer.get_lock():
        assert timer.value == 7.5
