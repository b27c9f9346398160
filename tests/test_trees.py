"""Trees that somebody hostile made are measured and removed without leaving them."""

import os
import subprocess
from pathlib import Path

import pytest

from executions.sandbox.trees import TooDeep, measure, remove_tree

ALL = {"bytes_limit": 1 << 50, "files_limit": 1 << 30}


def nest(top: Path, depth: int) -> None:
    """Deeper than a path may be long."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("directory", dir_fd=here)
        inner = os.open("directory", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_a_tree_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    nest(top, 3000)
    (top / "beside").write_text("x")
    remove_tree(top)
    assert list(tmp_path.iterdir()) == []


def test_a_tree_too_deep_is_not_measured(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    nest(top, 200)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(TooDeep):
        measure(top, **ALL)
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    remove_tree(top)


def test_links_are_removed_and_what_they_point_to_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("x")
    top = tmp_path / "top"
    (top / "deep").mkdir(parents=True)
    (top / "link").symlink_to(outside)
    (top / "deep/link").symlink_to(outside)
    (top / "deep/hard").hardlink_to(outside / "keep")
    os.mkfifo(top / "fifo")
    remove_tree(top)
    assert not top.exists()
    assert (outside / "keep").read_text() == "x"


def test_a_symlink_in_place_of_the_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "top").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="top"):
        remove_tree(tmp_path / "top")
    assert (tmp_path / "outside").is_dir()


def test_what_is_not_there_is_removed_already(tmp_path: Path) -> None:
    remove_tree(tmp_path / "absent")


@pytest.mark.parametrize("depth", ["mounted", "deep/deeper/mounted"])
def test_a_mount_point_is_never_crossed(tmp_path: Path, depth: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("x")
    top = tmp_path / "top"
    (top / depth).mkdir(parents=True)
    subprocess.run(["mount", "--bind", outside, top / depth], check=True)
    try:
        with pytest.raises(OSError, match=r"mount point|busy"):
            remove_tree(top)
        assert (outside / "keep").read_text() == "x"
    finally:
        mounted = [
            line.split()[4]
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if line.split()[4].startswith(f"{tmp_path}/")
        ]
        for path in mounted:
            subprocess.run(["umount", path], check=True)
    remove_tree(top)
    assert not top.exists()
    assert (outside / "keep").read_text() == "x"


def test_sparse_files_count_whole_and_hard_links_once(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert measure(tmp_path, **ALL).bytes == 1 << 40
    (tmp_path / "sparse").unlink()
    (tmp_path / "one").write_bytes(bytes(100_000))
    once = measure(tmp_path, **ALL)
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    twice = measure(tmp_path, **ALL)
    assert (once.bytes, once.files + 1) == (twice.bytes, twice.files)


def test_counting_stops_at_a_limit(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / str(number)).touch()
    assert measure(tmp_path, bytes_limit=1 << 30, files_limit=10).files == 11
