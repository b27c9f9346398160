"""Collecting what a program left in /output, however hostile it is."""

import contextlib
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from executions.sandbox.outputs import MOST_DEPTH, MOST_LEFT_OUT, MOST_SHOWN, Outputs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "output"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def collect(root: Path, *, files: int = 1000, size: int = 1 << 20) -> tuple[dict[str, bytes], str]:
    """Contents by path, and all that was left out as one text."""
    outputs = Outputs(root, files, size)
    found = {file.path: file.contents.read() for file in outputs.files()}
    return found, "\n".join(f"{entry['path']}: {entry['reason']}" for entry in outputs.left_out)


def test_regular_files_are_taken_in_order_with_their_paths(root: Path) -> None:
    (root / "b").write_bytes(b"\x00\xff")
    (root / "a").mkdir()
    (root / "a" / "deep name ü").write_bytes(b"")
    assert collect(root) == ({"a/deep name ü": b"", "b": b"\x00\xff"}, "")


def test_an_empty_output_gives_nothing(root: Path) -> None:
    assert collect(root) == ({}, "")


def test_modes_that_forbid_reading_do_not_keep_files_from_us(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"x")
    (root / "d" / "f").chmod(0)
    (root / "d").chmod(0)
    assert collect(root) == ({"d/f": b"x"}, "")


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "file", "nowhere", "/etc", ".", "..", "loop", "../../etc/passwd"]
)
def test_symbolic_links_are_left_out(root: Path, target: str) -> None:
    (root / "file").write_bytes(b"x")
    (root / "loop").symlink_to(target)
    found, left_out = collect(root)
    assert found == {"file": b"x"}
    assert left_out == "loop: it is a symbolic link"


def test_the_directory_itself_is_not_followed(root: Path) -> None:
    link = root.with_name("link")
    link.symlink_to("/etc")
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        collect(link)


def test_what_blocks_or_is_no_file_is_left_out_at_once(root: Path) -> None:
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o666, os.makedev(7, 0))
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(root / "socket"))
    began = time.monotonic()
    found, left_out = collect(root)
    assert time.monotonic() - began < 1
    assert found == {}
    assert left_out.splitlines() == [
        "disk: it is a device",
        "fifo: it is a FIFO",
        "null: it is a device",
        "socket: it is a socket",
    ]


def test_a_sparse_file_of_a_terabyte_is_left_out(root: Path) -> None:
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    (root / "then").write_bytes(b"x")
    found, left_out = collect(root)
    assert found == {"then": b"x"}
    assert left_out == "sparse: its 1099511627776 bytes are beyond the limit"


def test_hard_links_count_each_time(root: Path) -> None:
    (root / "a").write_bytes(b"x" * 400)
    for name in "bcd":
        os.link(root / "a", root / name)
    found, left_out = collect(root, size=1000)
    assert sorted(found) == ["a", "b"]
    assert left_out.count("beyond the limit") == 2


def test_sizes_are_summed_up_to_exactly_the_limit(root: Path) -> None:
    for name in "abc":
        (root / name).write_bytes(b"x" * 100)
    assert sorted(collect(root, size=300)[0]) == ["a", "b", "c"]
    found, left_out = collect(root, size=299)
    assert sorted(found) == ["a", "b"]
    assert left_out == "c: its 100 bytes are beyond the limit"


def test_files_are_counted_up_to_exactly_the_limit(root: Path) -> None:
    for name in "abc":
        (root / name).write_bytes(b"")
    assert sorted(collect(root, files=3)[0]) == ["a", "b", "c"]
    found, left_out = collect(root, files=2)
    assert sorted(found) == ["a", "b"]
    assert left_out == "c: there are more than 2 files"


def test_of_ten_thousand_files_the_first_are_kept_and_the_rest_is_told_shortly(root: Path) -> None:
    for number in range(10_000):
        (root / f"{number:05}").touch()
    outputs = Outputs(root, 100, 1 << 20)
    assert sum(1 for _ in outputs.files()) == 100
    assert len(outputs.left_out) == MOST_LEFT_OUT + 1
    assert outputs.left_out[-1] == {"path": "", "reason": f"and {9900 - MOST_LEFT_OUT} more"}


def test_directories_are_walked_to_a_depth_and_no_further(root: Path) -> None:
    directory = root
    for _ in range(100):
        directory /= "d"
        directory.mkdir()
        (directory / "f").touch()
    found, left_out = collect(root)
    assert len(found) == MOST_DEPTH
    assert left_out.endswith(f"/d: it lies deeper than {MOST_DEPTH} directories")


@pytest.mark.parametrize("name", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"a\nb", b"\x1b[2J", b"\x7f"])
def test_names_that_are_not_plain_text_are_left_out_and_shown_harmlessly(
    root: Path, name: bytes
) -> None:
    (root / os.fsdecode(name)).touch()
    found, left_out = collect(root)
    assert found == {}
    shown, _, reason = left_out.partition(": ")
    assert reason == "its name isn't plain UTF-8"
    assert shown.isascii()
    assert shown.isprintable()


def test_a_directory_with_such_a_name_is_left_out_with_all_below(root: Path) -> None:
    directory = root / os.fsdecode(b"\xff")
    directory.mkdir()
    (directory / "f").touch()
    assert collect(root)[0] == {}


def test_names_of_255_bytes_are_kept(root: Path) -> None:
    names = {"x" * 255, "ü" * 127}
    for name in names:
        (root / name).touch()
    assert collect(root)[0].keys() == names


@pytest.mark.parametrize("name", ["\\..\\..\\etc", "C:", "...", "%2e%2e", "-rf", " ", "a:b"])
def test_names_that_look_like_paths_elsewhere_are_names(root: Path, name: str) -> None:
    (root / name).touch()
    assert collect(root)[0].keys() == {name}


def test_long_paths_of_what_is_left_out_are_cut(root: Path) -> None:
    deep = root
    for _ in range(15):
        deep /= "d" * 200
        deep.mkdir()
    for number in range(200):
        (deep / f"link{number}").symlink_to("x")
    outputs = Outputs(root, 100, 1 << 20)
    assert list(outputs.files()) == []
    assert len(outputs.left_out) == MOST_LEFT_OUT + 1
    assert {len(entry["path"]) for entry in outputs.left_out[:-1]} == {MOST_SHOWN}
