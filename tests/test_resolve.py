"""Where a path leads in an image that was made to mislead."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from executions.sandbox.rootfs import MOUNT_POINTS, InputRefusedError, Place, resolve
from tests.hostile_files import make_device, make_fifo, make_file, make_socket


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path


def place(image: Path, path: str, *, follow: bool = False) -> Place:
    root = os.open(image, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return resolve(root, path, follow=follow)
    finally:
        os.close(root)


def test_a_path_that_is_not_there_leads_to_itself(image: Path) -> None:
    assert place(image, "a/b/c") == Place(("a", "b", "c"), "missing")


def test_files_and_directories_are_told_apart(image: Path) -> None:
    (image / "d").mkdir()
    (image / "d" / "f").touch()
    assert place(image, "d") == Place(("d",), "directory")
    assert place(image, "d/f") == Place(("d", "f"), "file")
    assert place(image, "") == Place((), "directory")


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/etc", ("etc", "x")),
        ("etc", ("etc", "x")),
        ("../etc", ("etc", "x")),
        ("../../../../../../etc", ("etc", "x")),
        ("/../../etc/./.", ("etc", "x")),
        ("/etc/../etc//", ("etc", "x")),
        ("/", ("x",)),
        ("/nowhere/../etc", ("etc", "x")),
        ("/nowhere/a", ("nowhere", "a", "x")),
    ],
)
def test_links_are_taken_as_inside_the_image(
    image: Path, target: str, parts: tuple[str, ...]
) -> None:
    (image / "etc").mkdir()
    (image / "link").symlink_to(target)
    assert place(image, "link/x") == Place(parts, "missing")


def test_chains_of_links_are_followed(image: Path) -> None:
    (image / "real" / "deep").mkdir(parents=True)
    (image / "a").symlink_to("/b/deep")
    (image / "b").symlink_to("real")
    assert place(image, "a/x").parts == ("real", "deep", "x")


@pytest.mark.parametrize("target", ["/proc", "/proc/self/root", "../proc", "/dev", "/sys/x"])
def test_links_into_our_mounts_lead_there_and_no_further(image: Path, target: str) -> None:
    (image / "link").symlink_to(target)
    (image / target.strip("./").split("/")[0]).symlink_to("/etc")
    found = place(image, "link/x")
    assert found.parts[0] in MOUNT_POINTS
    assert found.kind == "missing"


@pytest.mark.parametrize("name", MOUNT_POINTS)
def test_whatever_the_image_has_at_our_mounts_does_not_count(image: Path, name: str) -> None:
    (image / name).symlink_to("/etc")
    (image / "etc").mkdir()
    assert place(image, f"{name}/passwd") == Place((name, "passwd"), "missing")
    assert place(image, name) == Place((name,), "directory")


@pytest.mark.parametrize("target", ["loop", "/loop", "./loop/x", "other"])
def test_links_that_go_round_are_refused(image: Path, target: str) -> None:
    (image / "loop").symlink_to(target)
    (image / "other").symlink_to("loop")
    with pytest.raises(InputRefusedError, match="too many symbolic links"):
        place(image, "loop/file")


def test_links_that_grow_are_refused(image: Path) -> None:
    (image / "loop").symlink_to("loop/loop")
    with pytest.raises(InputRefusedError, match="too many symbolic links"):
        place(image, "loop/file")


def test_a_link_at_the_end_is_the_place_itself_unless_it_is_to_be_followed(image: Path) -> None:
    (image / "link").symlink_to("/there")
    assert place(image, "link") == Place(("link",), "file")
    assert place(image, "link", follow=True) == Place(("there",), "missing")


@pytest.mark.parametrize("make", [make_file, make_fifo, make_device, make_socket])
def test_what_is_no_directory_can_be_replaced_but_not_entered(
    image: Path, make: Callable[[Path], None]
) -> None:
    make(image / "thing")
    assert place(image, "thing") == Place(("thing",), "file")
    with pytest.raises(InputRefusedError, match="'thing/x': /thing is not a directory"):
        place(image, "thing/x")
