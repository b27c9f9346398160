"""The control socket: its answers are believed as far as they go, and `runsc exec` stands in."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executions.sandbox import control, oci, runsc
from executions.sandbox.control import ControlError
from executions.sandbox.spec import End
from tests.fixtures_sandbox import House


@pytest.mark.parametrize(
    ("version", "spoken"),
    [
        ("release-20240729.0", True),
        ("0.0~20240729.0", True),
        ("release-20240729.1", False),
        ("release-20250319.0", False),
        ("nightly", False),
        ("", False),
    ],
)
def test_only_releases_that_were_tried_are_spoken_to(version: str, spoken: bool) -> None:
    assert control.is_spoken(version) is spoken


SCRIPTS = [
    ("echo out; echo err >&2; exit 42", End.EXITED, 42),
    ("kill -KILL $$", End.SIGNALLED, 137),
    ("env | sort; pwd; id; ulimit -n; echo $0; cat; ps", End.EXITED, 0),
    ("exec /no/such", End.EXITED, 127),
]


def test_both_ways_in_give_the_same(house: House, request: pytest.FixtureRequest) -> None:
    ahead = [house.sh(script) for script, _, _ in SCRIPTS]
    request.getfixturevalue("exec_only")
    assert not house.host.runsc.speaks_control()
    for (script, end, code), before in zip(SCRIPTS, ahead, strict=True):
        now = house.sh(script)
        assert (now.end, now.exit_code) == (before.end, before.exit_code) == (end, code)
        assert (now.stdout, now.stderr) == (before.stdout, before.stderr)


def test_a_sandbox_that_dies_beneath_a_run_is_told_with_either(
    house: House, request: pytest.FixtureRequest
) -> None:
    hungry = "import sys; print('so far', flush=True); x = b'x' * (1 << 30)"
    for _ in range(2):
        result = house.py(hungry, memory_mb=64)
        assert (result.end, result.stdout, result.stderr) == (End.OUT_OF_MEMORY, b"so far\n", b"")
        request.getfixturevalue("exec_only")


Server = Callable[[socket.socket], None]


@contextlib.contextmanager
def kernel_that(does: Server, path: Path) -> Iterator[None]:
    """A sandbox's kernel that answers as it likes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                _, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 8)
                for descriptor in descriptors:
                    os.close(descriptor)
                does(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join(10)


def endless(connection: socket.socket) -> None:
    connection.sendall(b'{"success": true, "result": "')
    with contextlib.suppress(OSError):
        for _ in range(64):
            connection.sendall(b"x" * 4096)


@pytest.mark.parametrize(
    ("does", "message"),
    [
        (lambda c: c.sendall(b"nonsense"), "said b'nonsense'"),
        (lambda _: None, "said b''"),
        (lambda c: c.sendall(b'{"success":false,"err":"no such thing","result":null}'), "no such"),
        (lambda c: c.sendall(b'{"success":true,"err":"","result":-1}'), "said"),
        (lambda c: c.sendall(b'{"success":true,"err":"","result":"2"}'), "said"),
        (lambda c: c.sendall(b"[" * 60000), "said"),
        (endless, "said"),
    ],
)
def test_a_kernel_that_lies_is_refused_and_no_descriptor_stays(
    does: Server, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ANSWER_SECS", 3.0)
    path = tmp_path / "socket"
    before = len(list(Path("/proc/self/fd").iterdir()))
    with kernel_that(does, path), pytest.raises(ControlError, match=message):
        control.open_shell(path, "boxer-1", oci.shell())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_kernel_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ANSWER_SECS", 0.2)
    path = tmp_path / "socket"
    given_up = threading.Event()
    with kernel_that(lambda _: void(given_up.wait(10)), path):
        with pytest.raises(ControlError, match="timed out"):
            control.open_shell(path, "boxer-1", oci.shell())
        given_up.set()


def void(_: object) -> None:
    return None


def test_without_a_socket_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="No such file"):
        control.open_shell(tmp_path / "none", "boxer-1", oci.shell())


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (b'{"success":true,"err":"","result":1792}', 7),
        (b'{"success":true,"err":"","result":9}', -9),
        (b'{"success":true,"err":"","result":139}', -11),  # with the bit of a core dump
        (b'{"success":true,"err":"","result":127}', None),  # stopped isn't ended
        (b'{"success":false,"err":"gone","result":null}', None),
        (b'{"success":true,"result":', None),
        (b"", None),
        (b"3\n", 3),
        (b"139\n", -11),
        (b"145\n", 145),  # 128 + SIGCHLD, which ends nothing
        (b"sh: killed\n", None),
    ],
)
def test_what_the_end_of_a_command_tells(told: bytes, code: int | None) -> None:
    assert runsc.exit_code(told) == code
