"""What a program left in /output, taken without trusting it.

The program is dead by now, so the tree stands still; it may still be as hostile as it likes: links
to anywhere, FIFOs that block whoever opens them, sparse files of terabytes, names that aren't text.
Directories are walked by descriptor, nothing is opened before it is known to be a regular file, and
everything else is left out and said so.
"""

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

MOST_DEPTH = 32
MOST_LEFT_OUT = 100
"""How many of the things that were left out are listed by name."""
MOST_SHOWN = 255
"""Characters of a path in that list."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A regular file; `contents` is open only until the next one is asked for."""

    path: str
    size: int
    contents: BinaryIO


@dataclass(slots=True)
class Outputs:
    """Walks a directory: files() gives what can be kept, left_out tells the rest."""

    root: Path
    most_files: int
    most_bytes: int
    left_out: list[dict[str, str]] = field(default_factory=list)
    unlisted: int = 0
    _files: int = 0
    _bytes: int = 0

    def files(self) -> Iterator[OutputFile]:
        root = os.open(self.root, _DIRECTORY)
        try:
            yield from self._walk(root, "", 0)
        finally:
            os.close(root)
        if self.unlisted:
            self.left_out.append({"path": "", "reason": f"and {self.unlisted} more"})

    def leave_out(self, path: str, reason: str) -> None:
        if len(self.left_out) < MOST_LEFT_OUT:
            shown = path if len(path) <= MOST_SHOWN else f"{path[: MOST_SHOWN - 1]}…"
            self.left_out.append({"path": shown, "reason": reason})
        else:
            self.unlisted += 1

    def _walk(self, directory: int, prefix: str, depth: int) -> Iterator[OutputFile]:
        for raw in sorted(os.listdir(directory), key=os.fsencode):
            name = f"{prefix}{raw}"
            if not _is_text(raw):
                self.leave_out(_shown(name), "its name isn't plain UTF-8")
                continue
            mode = os.stat(raw, dir_fd=directory, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                yield from self._descend(directory, raw, name, depth)
            elif stat.S_ISREG(mode):
                yield from self._file(directory, raw, name)
            else:
                self.leave_out(name, f"it is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}")

    def _descend(self, parent: int, raw: str, name: str, depth: int) -> Iterator[OutputFile]:
        if depth + 1 > MOST_DEPTH:
            self.leave_out(name, f"it lies deeper than {MOST_DEPTH} directories")
            return
        directory = os.open(raw, _DIRECTORY, dir_fd=parent)
        try:
            yield from self._walk(directory, f"{name}/", depth + 1)
        finally:
            os.close(directory)

    def _file(self, parent: int, raw: str, name: str) -> Iterator[OutputFile]:
        descriptor = os.open(raw, _FILE, dir_fd=parent)
        with os.fdopen(descriptor, "rb") as contents:
            found = os.fstat(contents.fileno())
            if not stat.S_ISREG(found.st_mode):
                self.leave_out(name, "it is no regular file")
            elif self._bytes + found.st_size > self.most_bytes:
                # A sparse file may claim more than the file system can hold.
                self.leave_out(name, f"its {found.st_size} bytes are beyond the limit")
            elif self._files >= self.most_files:
                self.leave_out(name, f"there are more than {self.most_files} files")
            else:
                self._files += 1
                self._bytes += found.st_size
                yield OutputFile(name, found.st_size, contents)


def _is_text(name: str) -> bool:
    """Whether a name is UTF-8 (os.listdir gives surrogates for other bytes), no control in it."""
    return not any(unicodedata.category(character) in {"Cc", "Cs"} for character in name)


def _shown(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace").encode("unicode_escape").decode()
