"""Trees of files that somebody hostile made: measured, cleaned, removed, never followed."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEPTH_LIMIT = 128
"""Directories within each other; a walk holds two descriptors for each."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TooDeep(Exception):
    """Directories are nested deeper than DEPTH_LIMIT."""


@dataclass(frozen=True, slots=True)
class Usage:
    bytes: int
    files: int
    """Entries of any kind."""


def walk(root: Path) -> Generator[tuple[int, os.DirEntry[str]]]:
    """Every entry below `root`, with its directory's descriptor; entries may vanish meanwhile."""
    stack: list[tuple[int, Any]] = []
    try:
        top = os.open(root, _DIRECTORY)
        stack.append((top, os.scandir(top)))
        while stack:
            directory, entries = stack[-1]
            entry = next(entries, None)
            if entry is None:
                os.close(stack.pop()[0])
                continue
            yield directory, entry
            if entry.is_dir(follow_symlinks=False):
                if len(stack) >= DEPTH_LIMIT:
                    raise TooDeep(f"directories are nested deeper than {DEPTH_LIMIT}")
                child = _open_child(directory, entry.name)
                if child is not None:
                    stack.append((child, os.scandir(child)))
    finally:
        for descriptor, entries in stack:
            entries.close()
            os.close(descriptor)


def _open_child(directory: int, name: str) -> int | None:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None  # Removed or replaced since it was listed.
        raise


def measure(root: Path, *, bytes_limit: int, files_limit: int) -> Usage:
    """What lies below `root`; gives up counting once a limit is passed.

    A sparse file counts whole: a copy of it would be as large. Hard links count once.
    """
    total = files = 0
    linked: set[tuple[int, int]] = set()
    with contextlib.closing(walk(root)) as entries:
        for _, entry in entries:
            with contextlib.suppress(FileNotFoundError):
                total += _size(entry.stat(follow_symlinks=False), linked)
                files += 1
            if total > bytes_limit or files > files_limit:
                break
    return Usage(total, files)


def _size(status: os.stat_result, linked: set[tuple[int, int]]) -> int:
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        identity = (status.st_dev, status.st_ino)
        if identity in linked:
            return 0
        linked.add(identity)
    return max(status.st_size, status.st_blocks * 512)


def defuse(root: Path) -> int:
    """Removes what the host's kernel would take orders from; returns how many entries that were.

    Device nodes open the host's devices, a character device 0/0 hides a file from overlayfs, and
    trusted.* attributes steer it.
    """
    removed = 0
    for directory, entry in walk(root):
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            os.unlink(entry.name, dir_fd=directory)
            removed += 1
            continue
        path = f"/proc/self/fd/{directory}/{entry.name}"
        for attribute in os.listxattr(path, follow_symlinks=False):
            if attribute.startswith("trusted."):
                os.removexattr(path, attribute, follow_symlinks=False)
                removed += 1
    return removed


def remove_tree(path: Path) -> None:
    """Removes a directory and all below it, however deep; nothing when it isn't there.

    Directories are moved up to the top before they are emptied, so depth costs no descriptors and
    no path is followed. Raises OSError (EBUSY) at a mount point and leaves what it holds alone.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        _empty(top)
    finally:
        os.close(top)
    path.rmdir()


def _empty(top: int) -> None:
    mount = _mount_id(top)
    prefix = f".boxer-{secrets.token_hex(8)}-"
    moved = 0
    pending = _unlink_files(top)
    while pending:
        name = pending.pop()
        child = os.open(name, _DIRECTORY, dir_fd=top)
        try:
            if _mount_id(child) != mount:
                raise OSError(errno.EBUSY, "is a mount point; unmount it first", name)
            for inner in _unlink_files(child):
                moved += 1
                os.rename(inner, f"{prefix}{moved}", src_dir_fd=child, dst_dir_fd=top)
                pending.append(f"{prefix}{moved}")
        finally:
            os.close(child)
        os.rmdir(name, dir_fd=top)


def _unlink_files(directory: int) -> list[str]:
    """Unlinks everything but directories, whose names it returns."""
    with os.scandir(directory) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in listed:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in listed if is_directory]


def _mount_id(descriptor: int) -> str:
    """Bind mounts within one file system have its st_dev, but an ID of their own."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        if line.startswith("mnt_id:"):
            return line.removeprefix("mnt_id:").strip()
    raise OSError(errno.ENOTSUP, "the kernel doesn't tell the mount of a file")
