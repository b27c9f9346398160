"""A sandbox's own view of an image: an overlay above it that holds our mount points and the inputs.

Nothing here opens a path that an image controls by name. Where a path of a run leads inside the
image is found by walking it with dir_fd and O_NOFOLLOW, taking each link as the program would see
it; the files are then written into a directory of our own that overlayfs lays above the image.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from executions.sandbox import kernel
from executions.sandbox.oci import Bind
from executions.sandbox.spec import InputFile, SandboxError

MOUNT_POINTS = ("proc", "dev", "sys", "tmp", "output")
RESERVED = frozenset({"proc", "dev", "sys", "output"})
MOST_LINKS = 40
"""As Linux' own limit, see path_resolution(7)."""
MOST_BINDS = 64
"""Files under /tmp are mounts of their own: a hundred boot well, four hundred don't."""

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
        """Lay the overlay: mount points, `cwd` where it is missing, inputs, and our own `texts`."""
        for directory in (self.layer, self.work, self.merged, self.staged):
            directory.mkdir(mode=0o755)
        for name in MOUNT_POINTS:
            (self.layer / name).mkdir(mode=0o755)
        root = os.open(image, _DIRECTORY)
        try:
            self._make_cwd(root, cwd)
            for path, text in texts.items():
                self._write_text(resolve(root, path), text)
            for number, file in enumerate(inputs):
                self._place(resolve(root, file.path), file, number)
        finally:
            os.close(root)
        self._mount(image)

    def _make_cwd(self, root: int, cwd: str) -> None:
        place = resolve(root, cwd)
        under_mount = bool(place.parts) and place.parts[0] in MOUNT_POINTS
        if place.kind == "missing" and not under_mount:
            self._parents(place.parts)

    def _write_text(self, place: Place, text: str) -> None:
        if place.kind != "directory" and place.parts[0] not in MOUNT_POINTS:
            target = self._parents(place.parts[:-1]) / place.parts[-1]
            target.write_text(text)
            target.chmod(0o444)

    def _place(self, place: Place, file: InputFile, number: int) -> None:
        if not place.parts or place.kind == "directory":
            raise InputRefusedError(f"file {file.path!r}: the image has a directory there")
        first = place.parts[0]
        if first in RESERVED:
            raise InputRefusedError(f"file {file.path!r}: /{first} is reserved")
        if first == "tmp":
            self._bind(place, file, number)
            return
        target = self._parents(place.parts[:-1]) / place.parts[-1]
        _copy(file, target)

    def _bind(self, place: Place, file: InputFile, number: int) -> None:
        if len(self.binds) >= MOST_BINDS:
            raise InputRefusedError(f"file {file.path!r}: more than {MOST_BINDS} files under /tmp")
        staged = self.staged / str(number)
        _copy(file, staged)
        self.binds.append(Bind(staged, "/" + "/".join(place.parts)))

    def _parents(self, parts: Sequence[str]) -> Path:
        """Directories in our layer. All of it is ours: nothing the image made is walked here."""
        directory = self.layer
        for part in parts:
            directory /= part
            with contextlib.suppress(FileExistsError):
                directory.mkdir(mode=0o755)
        return directory

    def _mount(self, image: Path) -> None:
        options = (
            f"lowerdir={_escape(image)},upperdir={_escape(self.layer)},workdir={_escape(self.work)}"
        )
        kernel.mount("overlay", self.merged, "overlay", kernel.MS_NOSUID | kernel.MS_NODEV, options)

    def make_output(self, size: int, files: int, owner: int) -> None:
        """/output: a file system of its own, so that the kernel bounds its size and file count.

        Its contents are memory, charged to the cgroup of the sandbox that writes them.
        """
        self.output.mkdir(mode=0o755)
        # One inode is the root directory's.
        options = f"size={size},nr_inodes={files + 1},mode=0755,uid={owner},gid={owner}"
        kernel.mount("boxer", self.output, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)

    def remove(self) -> None:
        """Unmount and delete all of it; what was never made is passed over."""
        for mounted in (self.merged, self.output):
            if os.path.ismount(mounted):
                _unmount(mounted)
        if self.base.exists():
            shutil.rmtree(self.base)


def _unmount(target: Path) -> None:
    try:
        kernel.unmount(target)
    except OSError:
        # A process that just died may still hold it; it goes with the last reference.
        kernel.unmount(target, lazy=True)


def _escape(path: Path) -> str:
    """overlayfs separates by commas and colons, and unescapes a backslash before them."""
    text = str(path)
    for character in "\\,:":
        text = text.replace(character, f"\\{character}")
    return text


def _copy(file: InputFile, target: Path) -> None:
    """A read-only file of root's, made anew: never through something that lies there."""
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o444)
    with os.fdopen(descriptor, "wb") as copy, file.open() as original:
        shutil.copyfileobj(original, copy, 1 << 20)
        os.fchmod(copy.fileno(), 0o444)


def resolve(root: int, path: str) -> Place:
    """Where `path` leads beneath the directory `root`, as a program inside would be led.

    Links in the last component are not followed: a file placed there replaces the link. Raises
    InputRefusedError when a component on the way is no directory, or links go round in circles.
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
        if kind == "link" and todo:
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
    finally:
        os.close(directory)
