"""What runsc adds to a program's stderr when its sandbox is killed is not the program's."""

import time

import pytest

from executions.sandbox.sandbox import _without_epitaph

EPITAPH = (
    b'waiting on pid 2: waiting on PID 2 in sandbox "boxer-f4e2be8dea5e4a8ae8a0": '
    b'urpc method "containerManager.WaitPID" failed: EOF\n'
)


@pytest.mark.parametrize(
    "printed", [b"", b"\n", b"trouble\n", b"no newline", b"two\nlines\n\n", b"x" * 100_000 + b"\n"]
)
def test_it_is_taken_away_and_nothing_else(printed: bytes) -> None:
    assert _without_epitaph(printed + EPITAPH) == printed
    assert _without_epitaph(printed) == printed


def test_other_releases_say_it_otherwise() -> None:
    line = b'FATAL ERROR: urpc method "containerManager.Wait" failed: EOF\n'
    assert _without_epitaph(b"trouble\n" + line) == b"trouble\n"


@pytest.mark.parametrize("part", [b"urpc method ", b"urpc method  failed: ", b"waiting on pid "])
def test_no_program_can_make_the_search_slow(part: bytes) -> None:
    printed = part * (10_000_000 // len(part))
    began = time.monotonic()
    _without_epitaph(printed + b".")
    assert time.monotonic() - began < 3
