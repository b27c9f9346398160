"""A sandbox's view of an image: nothing of the host is followed, written or left."""

import hashlib
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from executions.sandbox import kernel
from executions.sandbox.rootfs import MOST_BINDS, MOUNT_POINTS, InputRefusedError, Rootfs
from executions.sandbox.spec import InputFile, SandboxError
from tests.fixtures_sandbox import file
from tests.hostile_files import make_device, make_fifo, make_file, make_socket


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def canary() -> Iterator[Path]:
    """A directory of the host that links of an image lead to; nothing of it may change.

    Not under /tmp, where a sandbox has something of its own.
    """
    with TemporaryDirectory(prefix="boxer-canary-", dir="/var/tmp") as made:
        path = Path(made)
        (path / "sub").mkdir()
        (path / "file").write_text("the host's")
        before = checksum(path)
        yield path
        assert checksum(path) == before


def checksum(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted([directory, *directory.rglob("*")]):
        status = path.lstat()
        seen = (path, status.st_mode, status.st_uid, status.st_nlink, status.st_mtime_ns)
        digest.update(repr(seen).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    """Where a sandbox's directories are; gone in the end, mounts and all."""
    path = tmp_path / "base"
    path.mkdir(mode=0o700)
    yield path
    Rootfs(path).remove()
    assert not path.exists()
    assert kernel.mounts_below(tmp_path) == []


def compose(base: Path, image: Path, *inputs: InputFile, cwd: str = "/", **texts: str) -> Rootfs:
    before = checksum(image)
    rootfs = Rootfs(base)
    try:
        rootfs.compose(image, inputs, cwd, {f"etc/{name}": text for name, text in texts.items()})
    finally:
        assert checksum(image) == before
    return rootfs


def test_inputs_appear_over_the_image_which_stays_as_it_was(base: Path, image: Path) -> None:
    (image / "app").mkdir()
    (image / "app" / "main.py").write_text("old")
    (image / "app" / "other.py").write_text("kept")
    rootfs = compose(
        base, image, file("app/main.py", b"new"), file("a/b/c/deep", b"d"), file("top", b"t")
    )
    assert (rootfs.merged / "app" / "main.py").read_bytes() == b"new"
    assert (rootfs.merged / "app" / "other.py").read_bytes() == b"kept"
    assert (rootfs.merged / "a" / "b" / "c" / "deep").read_bytes() == b"d"
    assert (rootfs.merged / "top").read_bytes() == b"t"


def test_inputs_are_read_only_files_of_root(base: Path, image: Path) -> None:
    rootfs = compose(base, image, file("f"), file("tmp/g"))
    for path in (rootfs.merged / "f", rootfs.binds[0].source):
        assert (path.stat().st_mode, path.stat().st_uid) == (0o100444, 0)


@pytest.mark.parametrize("make", [make_file, make_fifo, make_device, make_socket])
def test_an_input_replaces_whatever_is_no_directory(
    base: Path, image: Path, make: Callable[[Path], None]
) -> None:
    make(image / "thing")
    rootfs = compose(base, image, file("thing", b"new"))
    assert (rootfs.merged / "thing").read_bytes() == b"new"


def test_an_input_replaces_a_link_and_not_its_target(base: Path, image: Path, canary: Path) -> None:
    (image / "link").symlink_to(canary / "file")
    rootfs = compose(base, image, file("link", b"new"))
    assert (rootfs.merged / "link").read_bytes() == b"new"
    assert not (rootfs.merged / "link").is_symlink()


def test_a_directory_of_the_image_is_not_replaced(base: Path, image: Path) -> None:
    (image / "etc").mkdir()
    with pytest.raises(InputRefusedError, match="'etc': the image has a directory there"):
        compose(base, image, file("etc"))


def test_links_to_the_host_lead_into_the_image(base: Path, image: Path, canary: Path) -> None:
    (image / "absolute").symlink_to(canary)
    (image / "relative").symlink_to("../" * 20 + str(canary).lstrip("/"))
    rootfs = compose(base, image, file("absolute/file"), file("relative/sub/x"))
    inside = rootfs.merged / str(canary).lstrip("/")
    assert (inside / "file").read_bytes() == b"input"
    assert (inside / "sub" / "x").read_bytes() == b"input"


@pytest.mark.parametrize("name", MOUNT_POINTS)
@pytest.mark.parametrize("kind", ["link", "file", "fifo", "nothing"])
def test_our_mount_points_are_directories_whatever_the_image_has(
    base: Path, image: Path, canary: Path, name: str, kind: str
) -> None:
    if kind == "link":
        (image / name).symlink_to(canary)
    elif kind != "nothing":
        {"file": make_file, "fifo": make_fifo}[kind](image / name)
    rootfs = compose(base, image)
    assert (rootfs.merged / name).is_dir()
    assert not (rootfs.merged / name).is_symlink()


@pytest.mark.parametrize("name", ["proc", "dev", "sys", "output"])
@pytest.mark.parametrize("through", ["", "link/"])
def test_inputs_in_our_mounts_are_refused_also_through_a_link(
    base: Path, image: Path, name: str, through: str
) -> None:
    (image / "link").symlink_to("/")
    with pytest.raises(InputRefusedError, match=f"/{name} is reserved"):
        compose(base, image, file(f"{through}{name}/x"))


def test_inputs_under_tmp_are_mounts_of_their_own(base: Path, image: Path, canary: Path) -> None:
    (image / "tmp").symlink_to(canary)
    (image / "scratch").symlink_to("tmp")
    rootfs = compose(base, image, file("tmp/a/b", b"1"), file("scratch/c", b"2"))
    assert [bind.destination for bind in rootfs.binds] == ["/tmp/a/b", "/tmp/c"]
    assert [bind.source.read_bytes() for bind in rootfs.binds] == [b"1", b"2"]


def test_files_under_tmp_are_counted(base: Path, image: Path) -> None:
    inputs = [file(f"tmp/{number}") for number in range(MOST_BINDS + 1)]
    with pytest.raises(InputRefusedError, match=f"more than {MOST_BINDS} files under /tmp"):
        compose(base, image, *inputs)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x/f", "y/f"),
        ("y/f", "x/f/g"),
        ("x/f/g", "y/f"),
        ("t/f", "tmp/f"),
        ("tmp/f", "t/f/g"),
        ("t/f/g", "tmp/f"),
    ],
)
def test_two_inputs_that_links_lead_to_one_place_are_refused(
    base: Path, image: Path, first: str, second: str
) -> None:
    (image / "x").symlink_to("y")
    (image / "t").symlink_to("tmp")
    with pytest.raises(InputRefusedError, match="another file of this run"):
        compose(base, image, file(first), file(second))


def test_neighbours_with_a_common_beginning_are_no_collision(base: Path, image: Path) -> None:
    rootfs = compose(base, image, file("a"), file("ab"), file("tmp/a"), file("tmp/ab"))
    assert len(rootfs.binds) == 2


def test_bin_as_a_link_to_usr_bin_goes_on_working(base: Path, image: Path) -> None:
    busybox = shutil.which("busybox")
    assert busybox is not None
    (image / "usr" / "bin").mkdir(parents=True)
    shutil.copy(busybox, image / "usr" / "bin" / "busybox")
    (image / "usr" / "bin" / "echo").symlink_to("busybox")
    (image / "bin").symlink_to("usr/bin")
    rootfs = compose(base, image, file("bin/tool", b"t"))
    assert (rootfs.merged / "bin").is_symlink()
    assert (rootfs.merged / "usr" / "bin" / "tool").read_bytes() == b"t"
    said = subprocess.run(
        ["chroot", rootfs.merged, "/bin/echo", "hi"], capture_output=True, check=True
    )
    assert said.stdout == b"hi\n"


def test_a_missing_working_directory_is_made(base: Path, image: Path, canary: Path) -> None:
    (image / "link").symlink_to(canary / "new")
    (image / "link2").symlink_to("/made/by")
    assert (compose(base, image, cwd="/a/b").merged / "a" / "b").is_dir()
    Rootfs(base).remove()
    base.mkdir()
    inside = compose(base, image, cwd="/link/x").merged / str(canary).lstrip("/")
    assert (inside / "new" / "x").is_dir()
    Rootfs(base).remove()
    base.mkdir()
    assert (compose(base, image, cwd="/link2").merged / "made" / "by").is_dir()


@pytest.mark.parametrize("cwd", ["/file", "/file/x", "/loop/x", "/tmp/x", "/proc/x", "/input"])
def test_a_working_directory_that_cannot_be_made_is_left_to_the_command(
    base: Path, image: Path, cwd: str
) -> None:
    (image / "file").touch()
    (image / "loop").symlink_to("loop")
    rootfs = compose(base, image, file("input"), cwd=cwd)
    assert (rootfs.merged / "input").is_file()


def test_texts_of_ours_replace_the_image_s_but_not_an_input(
    base: Path, image: Path, canary: Path
) -> None:
    (image / "etc").mkdir()
    (image / "etc" / "hosts").symlink_to(canary / "file")
    rootfs = compose(
        base, image, file("etc/resolv.conf", b"theirs"), hosts="h", **{"resolv.conf": "r"}
    )
    assert (rootfs.merged / "etc" / "hosts").read_text() == "h"
    assert (rootfs.merged / "etc" / "resolv.conf").read_text() == "theirs"


@pytest.mark.parametrize("target", ["/proc", "/tmp", "file", "etc"])
def test_an_image_without_a_sound_etc_gets_no_texts(base: Path, image: Path, target: str) -> None:
    (image / "file").touch()
    (image / "etc").symlink_to(target)
    assert compose(base, image, hosts="h").merged.is_dir()


@pytest.mark.parametrize("umask", [0o077, 0o777, 0o000])
def test_whatever_our_umask_is_the_program_can_read_and_nobody_else_of_the_host(
    base: Path, image: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        rootfs = compose(base, image, file("a/b/f"), cwd="/c/d", hosts="h")
        rootfs.make_output(1 << 20, 10, 65534)
    finally:
        os.umask(before)
    merged = rootfs.merged
    for path in (merged, merged / "a", merged / "a/b", merged / "c/d", merged / "etc"):
        assert path.stat().st_mode & 0o7777 == 0o755
    assert (merged / "a/b/f").stat().st_mode & 0o7777 == 0o444
    assert (merged / "etc/hosts").stat().st_mode & 0o7777 == 0o444
    assert base.stat().st_mode & 0o7777 == 0o700
    tried = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "ls", merged],
        capture_output=True,
    )
    assert b"Permission denied" in tried.stderr


@pytest.mark.parametrize("name", ["a,b", "a:b", "a\\b", "a\\,b:c", "a b", "a=b", "ü\n", "a\\134"])
def test_homes_with_any_characters_work(tmp_path: Path, name: str) -> None:
    odd = tmp_path / name
    (odd / "image").mkdir(parents=True)
    (odd / "image" / "there").touch()
    (odd / "base").mkdir()
    rootfs = compose(odd / "base", odd / "image", file("f"))
    rootfs.make_output(1 << 20, 10, 65534)
    assert sorted(os.listdir(rootfs.merged)) == sorted([*MOUNT_POINTS, "f", "there"])  # noqa: PTH208
    assert len(kernel.mounts_below(odd)) == 2
    rootfs.remove()
    assert kernel.mounts_below(odd) == []
    assert not (odd / "base").exists()


def test_a_home_reached_through_a_link_is_cleared_too(tmp_path: Path, image: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    base = tmp_path / "link" / "base"
    base.mkdir()
    rootfs = compose(base, image)
    rootfs.make_output(1 << 20, 10, 65534)
    rootfs.remove()
    assert kernel.mounts_below(tmp_path / "real") == []
    assert list((tmp_path / "real").iterdir()) == []


def test_a_path_as_long_as_the_kernel_takes_works_and_goes(base: Path, image: Path) -> None:
    path = "d/" * 2047 + "f"
    rootfs = compose(base, image, file(path))
    root = os.open(rootfs.merged, os.O_RDONLY)
    os.close(os.open(path, os.O_RDONLY, dir_fd=root))
    os.close(root)


def test_output_is_bounded_in_bytes_and_files_and_is_the_program_s(base: Path) -> None:
    rootfs = Rootfs(base)
    rootfs.make_output(1 << 20, 10, 65534)
    assert rootfs.output.stat().st_uid == 65534
    for number in range(10):
        (rootfs.output / str(number)).touch()
    with pytest.raises(OSError, match="No space left"):
        (rootfs.output / "one more").touch()
    with pytest.raises(OSError, match="No space left"):
        (rootfs.output / "0").write_bytes(b"x" * ((1 << 20) + 1))


def test_contents_that_break_off_are_the_reader_s_error_and_leave_nothing(
    base: Path, image: Path
) -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, _buffer: object) -> int:
            raise OSError("the storage is away")

    broken = InputFile("f", lambda: io.BufferedReader(Broken()))
    with pytest.raises(OSError, match="the storage is away"):
        compose(base, image, broken)


def test_a_file_system_that_holds_no_overlay_is_named(tmp_path: Path, image: Path) -> None:
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={image},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    kernel.mount("overlay", tmp_path / "merged", "overlay", 0, options)
    base = tmp_path / "merged" / "base"
    base.mkdir()
    try:
        with pytest.raises(SandboxError, match="must be one that overlayfs can write to"):
            compose(base, image)
        Rootfs(base).remove()
        assert not base.exists()
    finally:
        kernel.unmount(tmp_path / "merged")


def test_removing_twice_or_what_was_never_made_is_nothing(base: Path, image: Path) -> None:
    rootfs = compose(base, image)
    rootfs.make_output(1 << 20, 10, 65534)
    rootfs.remove()
    rootfs.remove()
    Rootfs(base / "never").remove()
    assert not base.exists()


def test_what_is_busy_is_let_go(base: Path, image: Path) -> None:
    rootfs = compose(base, image, file("f"))
    with (rootfs.merged / "f").open():
        rootfs.remove()
    assert not base.exists()


def test_a_link_in_place_of_a_mount_point_is_removed_and_not_followed(
    base: Path, canary: Path
) -> None:
    (base / "root").symlink_to(canary)
    (base / "output").symlink_to(canary)
    Rootfs(base).remove()


def test_two_who_remove_it_at_once_leave_nothing(tmp_path: Path) -> None:
    """Who gave a sandbox away too late, and who it was given to."""
    image = tmp_path / "image"
    image.mkdir()
    for number in range(5):
        base = tmp_path / f"sandbox-{number}"
        base.mkdir()
        rootfs = Rootfs(base)
        rootfs.compose(image, [file(f"d{n}/e/f{n}") for n in range(60)], "/", {})
        rootfs.make_output(1 << 20, 16, 65534)
        with ThreadPoolExecutor(2) as threads:
            for done in [threads.submit(Rootfs(base).remove) for _ in range(2)]:
                done.result()
        assert not base.exists()
        assert kernel.mounts_below(base) == []
