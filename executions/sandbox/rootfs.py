"""A sandbox's own view of an image: an overlay above it that holds our mount points and the inputs.

Nothing here opens a path that an image controls by name. Where a path of a run leads inside the
image is found by walking it with dir_fd and O_NOFOLLOW, taking each link as the program would see
it; the files are then written into a directory of our own that overlayfs lays above the image.
"""

import contextlib
import errno
import io
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from executions.sandbox import kernel, trees
from executions.sandbox.oci import Bind
from executions.sandbox.spec import InputFile, SandboxError

MOUNT_POINTS = ("proc", "dev", "sys", "tmp", "output")
RESERVED = frozenset({"proc", "dev", "sys", "output"})
REMOVALS = 50
"""Looks, 10 ms apart, at a directory that somebody else may be removing."""
LOOKED_AT = frozenset({"etc"})
"""Where runsc has searched /etc/passwd for a home directory when the sandbox's shell was opened."""
MOST_LINKS = 40
"""As Linux' own limit, see path_resolution(7)."""
MOST_BINDS = 64
"""Files under /tmp are mounts of their own: a hundred boot well, four hundred don't."""

_VANISHED = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY})

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class InputRefusedError(SandboxError):
    """An input's place isn't one where a file can be put: the caller's mistake."""

    code = "file_refused"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads in an image, links resolved; `kind` is what is there already."""

    parts: tuple[str, ...]
    kind: str  # "missing", "file", "directory"


@dataclass(slots=True)
class Rootfs:
    """Directories of one sandbox below `base`; made by compose(), gone after remove()."""

    base: Path
    binds: list[Bind] = field(default_factory=list)

    @property
    def layer(self) -> Path:
        return self.base / "layer"

    @property
    def work(self) -> Path:
        return self.base / "work"

    @property
    def merged(self) -> Path:
        return self.base / "root"

    @property
    def staged(self) -> Path:
        return self.base / "staged"

    @property
    def output(self) -> Path:
        return self.base / "output"

    def compose(
        self, image: Path, inputs: Sequence[InputFile], cwd: str, texts: dict[str, str]
    ) -> None:
        """Lay the overlay: mount points, inputs, our own `texts`, `cwd` where it is missing."""
        for directory in (self.layer, self.work, self.merged, self.staged):
            make_directory(directory)
        for name in MOUNT_POINTS:
            make_directory(self.layer / name)
        root = os.open(image, _DIRECTORY)
        try:
            for number, file in enumerate(inputs):
                self._place(resolve(root, file.path), file, number)
            # Where these two can't be, the program is told by what it finds.
            for path, text in texts.items():
                with contextlib.suppress(InputRefusedError):
                    self._write_text(resolve(root, path), text)
            with contextlib.suppress(InputRefusedError):
                self._make_cwd(resolve(root, cwd, follow=True))
        finally:
            os.close(root)
        self._mount(image)

    def _make_cwd(self, place: Place) -> None:
        """Beneath a mount of the sandbox the command's script makes it (see oci.py)."""
        if place.kind == "missing" and place.parts[0] not in MOUNT_POINTS:
            with _directory(self.layer, place.parts):
                pass

    def _write_text(self, place: Place, text: str) -> None:
        if place.kind != "directory" and place.parts[0] not in MOUNT_POINTS:
            write_file(self.layer, place.parts, io.BytesIO(text.encode()))

    def _place(self, place: Place, file: InputFile, number: int) -> None:
        if not place.parts or place.kind == "directory":
            raise InputRefusedError(f"file {file.path!r}: the image has a directory there")
        first = place.parts[0]
        if first in RESERVED:
            raise InputRefusedError(f"file {file.path!r}: /{first} is reserved")
        if first == "tmp":
            self._bind(place, file, number)
            return
        with file.open() as contents:
            write_file(self.layer, place.parts, contents, executable=file.executable)

    def _bind(self, place: Place, file: InputFile, number: int) -> None:
        if len(self.binds) >= MOST_BINDS:
            raise InputRefusedError(f"file {file.path!r}: more than {MOST_BINDS} files under /tmp")
        bind = Bind(self.staged / str(number), "/" + "/".join(place.parts))
        for other in self.binds:
            if f"{bind.destination}/".startswith(f"{other.destination}/") or (
                other.destination.startswith(f"{bind.destination}/")
            ):
                raise _taken(bind.destination)
        with file.open() as contents:
            write_file(self.staged, (str(number),), contents, executable=file.executable)
        self.binds.append(bind)

    def _mount(self, image: Path) -> None:
        options = (
            f"lowerdir={_escape(image)},upperdir={_escape(self.layer)},workdir={_escape(self.work)}"
        )
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        try:
            kernel.mount("overlay", self.merged, "overlay", flags, options)
        except OSError as error:
            raise SandboxError(
                f"{error}; the file system of {self.base} must be one that overlayfs can write to, "
                "such as ext4, xfs, btrfs or tmpfs, not the root of a container"
            ) from error

    def place(self, image: Path, inputs: Sequence[InputFile], cwd: str) -> None:
        """Put inputs, and `cwd` where it is missing, into a view that is mounted already.

        Only what fits() may be placed: then no component of a path is a link, neither in the image
        nor above it, and each is opened as what it was found to be. Raises OSError, SandboxError.
        """
        root = os.open(image, _DIRECTORY)
        try:
            for file in inputs:
                with file.open() as contents:
                    write_file(
                        self.merged,
                        resolve(root, file.path).parts,
                        contents,
                        executable=file.executable,
                    )
            place = resolve(root, cwd)
            if place.kind == "missing" and place.parts[0] not in MOUNT_POINTS:
                with _directory(self.merged, place.parts):
                    pass
        finally:
            os.close(root)

    def make_output(self, size: int, files: int, owner: int) -> None:
        """/output: a file system of its own, so that the kernel bounds its size and file count.

        Its contents are memory, charged to the cgroup of the sandbox that writes them.
        """
        make_directory(self.output)
        # One inode is the root directory's.
        options = f"size={size},nr_inodes={files + 1},mode=0755,uid={owner},gid={owner}"
        kernel.mount("boxer", self.output, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)

    def remove(self) -> None:
        """Unmount and delete all of it; what was never made is passed over.

        Two may do it at once: who gave a sandbox away too late, and who it was given to. Each sees
        things vanish beneath it, and looks again until nothing is there.
        """
        for attempt in range(REMOVALS):
            try:
                for mounted in kernel.mounts_below(self.base):
                    _unmount(mounted)
                trees.remove_tree(self.base)
            except OSError as error:
                if error.errno not in _VANISHED or attempt == REMOVALS - 1:
                    raise
                time.sleep(0.01)
            else:
                return


def fits(image: Path, inputs: Sequence[InputFile], cwd: str) -> bool:
    """Whether inputs can be put into a sandbox that runs already.

    They can where a path leads through real directories of the image to something missing, not
    under a mount of the sandbox, and not where gVisor has looked already: it believes that nobody
    else changes a root file system, and remembers. Raises InputRefusedError as compose() would.
    """
    root = os.open(image, _DIRECTORY)
    try:
        places = [(resolve(root, file.path), file.path) for file in inputs]
        with contextlib.suppress(InputRefusedError):  # the program is told by what it finds
            there = resolve(root, cwd, follow=True)
            if there.kind == "missing" and there.parts[0] not in MOUNT_POINTS:
                places.append((there, cwd))
    finally:
        os.close(root)
    return all(
        place.kind == "missing"
        and place.parts == tuple(_parts(path))
        and place.parts[0] not in (*MOUNT_POINTS, *LOOKED_AT)
        for place, path in places
    )


def make_directory(directory: Path, *, exist_ok: bool = False) -> None:
    """One that the program may enter, whatever our umask is."""
    directory.mkdir(exist_ok=exist_ok)
    directory.chmod(0o755)


def _unmount(target: Path) -> None:
    try:
        kernel.unmount(target)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return  # somebody else who may remove it was faster
        # A process that just died may still hold it; it goes with the last reference.
        kernel.unmount(target, lazy=True)


def _escape(path: Path) -> str:
    """overlayfs separates by commas and colons, and unescapes a backslash before them."""
    text = str(path)
    for character in "\\,:":
        text = text.replace(character, f"\\{character}")
    return text


def _taken(path: str) -> InputRefusedError:
    return InputRefusedError(f"file {path!r}: another file of this run is there, or above or below")


@contextlib.contextmanager
def _directory(top: Path, parts: Sequence[str]) -> Iterator[int]:
    """A directory below one of our own, made where it is missing.

    All of it is ours: nothing the image made is walked here. It is walked by descriptor since the
    whole path may be longer than the kernel takes.
    """
    directory = os.open(top, _DIRECTORY)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=directory)
            try:
                below = os.open(part, _DIRECTORY, dir_fd=directory)
            except NotADirectoryError:
                raise _taken("/" + "/".join(parts)) from None
            os.close(directory)
            directory = below
            os.fchmod(directory, 0o755)
        yield directory
    finally:
        os.close(directory)


def write_file(
    top: Path, parts: Sequence[str], contents: BinaryIO, *, executable: bool = False
) -> None:
    """A read-only file of root's, made anew: never through something that lies there."""
    with _directory(top, parts[:-1]) as directory:
        try:
            descriptor = os.open(parts[-1], _NEW_FILE, 0o444, dir_fd=directory)
        except FileExistsError:
            raise _taken("/" + "/".join(parts)) from None
    with os.fdopen(descriptor, "wb") as copy:
        shutil.copyfileobj(contents, copy, 1 << 20)
        os.fchmod(copy.fileno(), 0o555 if executable else 0o444)


def resolve(root: int, path: str, *, follow: bool = False) -> Place:
    """Where `path` leads beneath the directory `root`, as a program inside would be led.

    A link in the last component is followed only if asked for: a file placed there replaces it.
    Raises InputRefusedError when a component on the way is no directory, or links go in circles.
    """
    todo = _parts(path)
    here: list[str] = []
    links = 0
    while todo:
        part = todo.pop(0)
        if part == "..":
            here = here[:-1]
            continue
        if not here and part in MOUNT_POINTS:
            # Mounted over, whatever the image has there.
            return Place(_lexical([part, *todo]), "missing" if todo else "directory")
        kind, target = _look(root, here, part)
        if kind == "link" and (todo or follow):
            links += 1
            if links > MOST_LINKS:
                raise InputRefusedError(f"{path!r}: too many symbolic links in the image")
            here = [] if target.startswith("/") else here
            todo = _parts(target) + todo
            continue
        if kind == "missing":
            return Place(_lexical([*here, part, *todo]), "missing")
        if kind != "directory" and todo:
            raise InputRefusedError(
                f"{path!r}: /{'/'.join([*here, part])} is not a directory in the image"
            )
        here.append(part)
        if not todo:
            return Place(tuple(here), "directory" if kind == "directory" else "file")
    return Place(tuple(here), "directory")


def _parts(path: str) -> list[str]:
    return [part for part in PurePosixPath(path).parts if part != "/"]


def _lexical(parts: Sequence[str]) -> tuple[str, ...]:
    """`..` after a component that doesn't exist can only come from a link's own text."""
    clean: list[str] = []
    for part in parts:
        if part == "..":
            clean = clean[:-1]
        else:
            clean.append(part)
    return tuple(clean)


def _look(root: int, parents: Sequence[str], name: str) -> tuple[str, str]:
    """What `name` is ("missing", "directory", "link", "file"), and a link's text."""
    directory = os.dup(root)
    try:
        for parent in parents:
            below = os.open(parent, _DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = below
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            return "link", os.readlink(name, dir_fd=directory)
        return ("directory" if stat.S_ISDIR(mode) else "file"), ""
    except FileNotFoundError:
        return "missing", ""
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise InputRefusedError(f"{name[:64]!r}…: too long for the name of a file") from None
    finally:
        os.close(directory)
