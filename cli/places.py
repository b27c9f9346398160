"""Files from the server below a directory of ours: nothing outside of it, no links followed."""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

from cli.errors import ClientError
from cli.terminal import plain

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def parts_of(path: str) -> tuple[str, ...]:
    """Raises ClientError for what doesn't stay below. The path is the server's word alone."""
    parts = tuple(path.split("/"))
    if "\0" in path or any(part in {"", ".", ".."} for part in parts):
        raise ClientError(f"the server names a path that leads elsewhere: {plain(path)!r}")
    return parts


def taken(directory: Path, paths: Sequence[str]) -> list[str]:
    """Those that are there already, as anything."""
    return [path for path in paths if os.path.lexists(directory.joinpath(*parts_of(path)))]


def receive(
    directory: Path, path: str, chunks: Iterable[bytes], *, digest: str, force: bool
) -> None:
    """A whole file, or none. `force` replaces one that is there, or a link, never what it leads to.

    Raises ClientError, also when the contents don't have the sha256 `digest` (unless it is empty).
    """
    *above, name = parts_of(path)
    shown = directory / path
    beside = f".boxer-{token_hex(8)}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _below(directory, above) as parent:
            try:
                _write(parent, beside, chunks, digest, shown)
                if force:
                    os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
                else:
                    os.link(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
            finally:
                _remove(parent, beside)
    except FileExistsError:
        raise ClientError(f"{shown}: is there already (--force replaces it)") from None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise ClientError(f"{shown}: a link or a file is in the way") from None
        raise ClientError(f"{shown}: {error.strerror}") from None


@contextmanager
def _below(directory: Path, parts: Sequence[str]) -> Iterator[int]:
    """The directory `parts` leads to, made where it isn't there; no step goes through a link."""
    # The user named the first one: that may be a link.
    current = os.open(directory, _DIRECTORY & ~os.O_NOFOLLOW)
    try:
        for part in parts:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=current)
            deeper = os.open(part, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = deeper
        yield current
    finally:
        os.close(current)


def _write(parent: int, name: str, chunks: Iterable[bytes], digest: str, shown: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    seen = sha256()
    with open(os.open(name, flags, 0o666, dir_fd=parent), "wb") as out:  # noqa: PTH123
        for chunk in chunks:
            out.write(chunk)
            seen.update(chunk)
    if digest and seen.hexdigest() != digest:
        raise ClientError(f"{shown}: arrived with other contents than the server has; try again")


def _remove(parent: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)
