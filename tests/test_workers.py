"""Workers are known by a lock that their death opens."""

import os
import signal
import time
from pathlib import Path

from executions import workers


def test_a_live_worker_is_not_taken_for_dead(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        workers.register(tmp_path, "host-1")
        os.write(writer, b"!")
        time.sleep(60)
        os._exit(0)
    os.read(reader, 1)
    try:
        with workers.dead_workers(tmp_path) as dead:
            assert dead == []
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with workers.dead_workers(tmp_path) as dead:
        assert [(worker.host_id, worker.directory.is_dir()) for worker in dead] == [
            ("host-1", True)
        ]
        with workers.dead_workers(tmp_path) as again:
            assert again == []  # who buries it has it to himself
        workers.forget(dead[0])
    assert list((tmp_path / "workers").iterdir()) == []


def test_each_worker_has_a_private_directory_and_a_name_of_its_own(tmp_path: Path) -> None:
    first, second = workers.register(tmp_path, "h"), workers.register(tmp_path, "h")
    assert first.name != second.name
    assert first.directory.stat().st_mode & 0o777 == 0o700
    workers.forget(first)
    workers.forget(second)
    workers.forget(second)
    assert not first.lock.exists()
