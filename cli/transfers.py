"""Files to the server and from it, with bars where somebody looks."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import httpx
from rich.progress import Progress

from cli import places, terminal
from cli.api import Api, execution_path
from cli.errors import ClientError


@dataclass(frozen=True, slots=True)
class Upload:
    """`local` here becomes `path` in the file store, and /`path` in a sandbox."""

    local: Path
    path: str


def upload_of(given: str) -> Upload:
    """FILE[:PATH]. Raises ClientError. A file whose own name has a colon wins over that reading."""
    local, colon, path = given, "", ""
    if not os.path.lexists(given):
        local, colon, path = given.rpartition(":") if ":" in given else (given, "", "")
    if colon and not path:
        raise ClientError(f"{given}: nothing after the colon")
    file = Path(local)
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise ClientError(f"{local}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise ClientError(f"{local}: is not a regular file")
    return Upload(file, path.lstrip("/") if colon else _default_path(local))


def _default_path(local: str) -> str:
    """As it was named where that leads down from here; else its last name."""
    pure = PurePosixPath(local)
    return pure.name if pure.is_absolute() or ".." in pure.parts else str(pure)


def upload(api: Api, uploads: Sequence[Upload]) -> list[str]:
    """Paths in the store, as the server has cleaned them. Raises ClientError."""
    doubled = {one.path for one in uploads if [two.path for two in uploads].count(one.path) > 1}
    if doubled:
        raise ClientError(f"{min(doubled)}: two files for one path")
    if not uploads:
        return []  # no display that would move the cursor for nothing
    with terminal.transfers() as progress:
        return [_upload(api, one, progress) for one in uploads]


def _upload(api: Api, one: Upload, progress: Progress) -> str:
    try:
        with one.local.open("rb") as contents:
            size = os.fstat(contents.fileno()).st_size
            task = progress.add_task(terminal.plain(one.local), total=size)

            def prepare() -> dict[str, Any]:
                contents.seek(0)
                progress.reset(task)
                counted = _Counted(contents, partial(progress.advance, task))
                return {"data": {"path": one.path}, "files": {"file": (one.local.name, counted)}}

            answer = api.ask("POST", "/files", str(one.local), prepare)
    except OSError as error:
        raise ClientError(f"{one.local}: {error.strerror}") from None
    return str(answer["path"])


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: BufferedReader, tell: Callable[[int], object]) -> None:
        self._file = file
        self._tell = tell

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._tell(len(data))
        return data

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read(1 << 16):
            yield data

    def fileno(self) -> int:
        """For httpx, which wants to know the length."""
        return self._file.fileno()


@dataclass(frozen=True, slots=True)
class LeftFile:
    """A file that a run left, `path` below its /output."""

    path: str
    size: int
    sha256: str

    def route(self, exec_id: str) -> str:
        return execution_path(exec_id, f"files/{quote(self.path)}")


def left_files(api: Api, exec_id: str) -> list[LeftFile]:
    answer = api.get(execution_path(exec_id, "files/"), exec_id)
    return [LeftFile(file["path"], file["size"], file["sha256"]) for file in answer["files"]]


def download(
    api: Api, exec_id: str, files: Sequence[LeftFile], directory: Path, *, force: bool
) -> None:
    """All of them, or an error before the first when one is there already. Raises ClientError."""
    there = places.taken(directory, [file.path for file in files])
    if there and not force:
        shown = directory / there[0]
        raise ClientError(
            f"{shown}: is there already, nothing was taken home; "
            f"boxer files get --run {exec_id} -o {directory} --force replaces it"
        )
    if not files:
        return
    with terminal.transfers() as progress:
        for file in files:
            task = progress.add_task(terminal.plain(file.path), total=file.size)
            with api.stream(file.route(exec_id), file.path) as response:
                chunks = _told(response, partial(progress.advance, task))
                places.receive(directory, file.path, chunks, digest=file.sha256, force=force)


def _told(response: httpx.Response, tell: Callable[[int], object]) -> Iterator[bytes]:
    for chunk in response.iter_bytes(1 << 16):
        tell(len(chunk))
        yield chunk
