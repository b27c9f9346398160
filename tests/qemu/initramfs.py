"""Writing the first root file system of a kernel: a cpio archive in the `newc` format.

Source: kernel documentation, driver-api/early-userspace/buffer-format.rst.
"""

import shutil
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

TRAILER = "TRAILER!!!"


class Initramfs:
    """Entries are written as they come; parents are made, and a name that is there stays."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._names: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entry(TRAILER, 0, 0, 0)
        self._file.close()

    def directory(self, name: str) -> None:
        if self._claim(name):
            self._entry(name, stat.S_IFDIR | 0o755, 0, 0)

    def text(self, name: str, content: str, mode: int = 0o644) -> None:
        if self._claim(name):
            data = content.encode()
            self._entry(name, stat.S_IFREG | mode, len(data), 0)
            self._file.write(data)
            self._pad()

    def copy(self, source: Path, name: str) -> None:
        """A file as it is on this machine, links followed; Python looks at when it was written."""
        if self._claim(name):
            status = source.stat()
            mode = stat.S_IFREG | stat.S_IMODE(status.st_mode)
            self._entry(name, mode, status.st_size, int(status.st_mtime))
            with source.open("rb") as content:
                shutil.copyfileobj(content, self._file, 1 << 20)
            self._pad()

    def _claim(self, name: str) -> bool:
        """Whether the name is new; its parents are there then."""
        if name in self._names:
            return False
        self._names.add(name)
        parent = name.rpartition("/")[0]
        if parent:
            self.directory(parent)
        return True

    def _entry(self, name: str, mode: int, size: int, written: int) -> None:
        encoded = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        inode = len(self._names)
        # inode, mode, uid, gid, links, mtime, size, 2 x device, 2 x rdev, name's length, checksum
        fields = (inode, mode, 0, 0, links, written, size, 0, 0, 0, 0, len(encoded), 0)
        header = "070701" + "".join(f"{field:08X}" for field in fields)
        self._file.write(header.encode() + encoded)
        self._pad()

    def _pad(self) -> None:
        self._file.write(bytes(-self._file.tell() % 4))
