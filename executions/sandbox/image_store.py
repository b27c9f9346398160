"""What an image store keeps on disk: unpacked images, tags, and areas where work goes on."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from executions.sandbox import attempts, trees
from executions.sandbox.image_errors import ImageInUse, ImageNotFound

FRESH = "fresh"
FRESH_SECS = 10.0
"""An image that was just pulled for a run can't be taken away until that run has locked it; a run
that died before it could doesn't count for longer than this."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is unpacked; `rootfs` is only sure to stay while it is held."""

    reference: str
    digest: str
    """Of the manifest for this machine's platform."""
    rootfs: Path
    env: tuple[str, ...]
    size: int
    """Bytes, unpacked."""
    platform: str = ""
    """`os/architecture`, as its configuration says; empty where that wasn't kept."""


@dataclass(frozen=True, slots=True)
class Tag:
    """What a reference meant when its registry was asked last."""

    reference: str
    digest: str
    checked: float
    """Wall clock, so that processes share it."""
    imported: bool = False
    """It came from an archive: no registry is asked, and it doesn't grow old."""


class Tags:
    """One small file for each reference, replaced whole."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, reference: str) -> Tag | None:
        return self._read(self.root / file_name(reference))

    def _read(self, path: Path) -> Tag | None:
        try:
            return Tag(**json.loads(path.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, tag: Tag) -> None:
        fresh = self.root / f"{secrets.token_hex(8)}.new"
        fresh.write_text(json.dumps(asdict(tag)))
        fresh.replace(self.root / file_name(tag.reference))

    def clear(self) -> None:
        """Removes what a writer left that was killed: writing takes no minute."""
        for path in self.root.glob("*.new"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > 60:
                    path.unlink()

    def delete(self, reference: str) -> None:
        (self.root / file_name(reference)).unlink(missing_ok=True)

    def all(self) -> list[Tag]:
        found = [self._read(path) for path in self.root.glob("*.json")]
        return sorted((tag for tag in found if tag), key=lambda tag: tag.reference)

    def of(self, digest: str) -> list[Tag]:
        return [tag for tag in self.all() if tag.digest == digest]


def file_name(reference: str) -> str:
    return f"{hashlib.sha256(reference.encode()).hexdigest()}.json"


class Unpacked:
    """A directory for each digest: `image.json` and `rootfs`.

    Who uses an image has its directory locked shared; who takes it away locks it exclusively. The
    directory's own modification time tells when it was used last.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        return self.root / digest.replace(":", "/")

    def read(self, digest: str, reference: str) -> Image | None:
        path = self.path(digest)
        try:
            known = json.loads((path / "image.json").read_bytes())
        except FileNotFoundError:
            return None
        return Image(
            reference,
            digest,
            path / "rootfs",
            tuple(known["env"]),
            known["size"],
            known.get("platform", ""),
        )

    def share(self, digest: str, deadline: float) -> int | None:
        """A descriptor that holds the image until `attempts.unlock`; None when it is gone."""
        path = self.path(digest)
        try:
            descriptor = os.open(path, _DIRECTORY)
        except FileNotFoundError:
            return None
        try:
            attempts.lock(descriptor, fcntl.LOCK_SH, deadline)
            if attempts.same_file(descriptor, path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(FRESH, dir_fd=descriptor)
                os.utime(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        attempts.unlock(descriptor)
        return None

    def publish(self, staged: Path, digest: str) -> None:
        """Moves a whole image directory to its place; one that is there already stays."""
        path = self.path(digest)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            staged.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise

    def take_away(self, digest: str, destination: Path) -> None:
        """Moves an image that nobody uses to `destination`. Raises ImageInUse, ImageNotFound."""
        path = self.path(digest)
        try:
            descriptor = os.open(path, _DIRECTORY)
        except FileNotFoundError:
            raise ImageNotFound(f"{digest}: no such image here") from None
        try:
            attempts.lock(descriptor, fcntl.LOCK_EX, 0)
            if not attempts.same_file(descriptor, path):
                raise ImageNotFound(f"{digest}: no such image here")
            if self._fresh(path):
                raise ImageInUse(f"{digest}: a run is about to use it")
            path.rename(destination)
        except attempts.WaitedTooLong:
            raise ImageInUse(f"{digest}: a run is using it") from None
        finally:
            attempts.unlock(descriptor)

    def _fresh(self, path: Path) -> bool:
        try:
            return abs(time.time() - (path / FRESH).stat().st_mtime) < FRESH_SECS
        except FileNotFoundError:
            return False

    def settle(self, digest: str) -> None:
        """No run waits for this image: it may be taken away from now on."""
        (self.path(digest) / FRESH).unlink(missing_ok=True)

    def digests(self) -> list[str]:
        return [f"{path.parent.name}:{path.name}" for path in sorted(self.root.glob("*/*"))]

    def last_used(self, digest: str) -> float:
        try:
            return self.path(digest).stat().st_mtime
        except FileNotFoundError:
            return 0.0


class WorkAreas:
    """Directories for what isn't finished, each locked by whoever works in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def area(self) -> Iterator[Path]:
        """A directory of one's own, removed in the end; `clear` removes it where we die."""
        path, descriptor = self._make()
        try:
            yield path
        finally:
            try:
                trees.remove_tree(path)
            finally:
                attempts.unlock(descriptor)

    def _make(self) -> tuple[Path, int]:
        while True:
            path = self.root / secrets.token_hex(8)
            path.mkdir(mode=0o700)
            try:
                descriptor = os.open(path, _DIRECTORY)
            except FileNotFoundError:
                continue  # Cleared between the two calls.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if attempts.same_file(descriptor, path):
                return path, descriptor
            attempts.unlock(descriptor)

    def clear(self) -> int:
        """Removes the areas of the dead; returns how many."""
        cleared = 0
        for path in self.root.iterdir():
            try:
                descriptor = os.open(path, _DIRECTORY)
            except FileNotFoundError:
                continue
            try:
                attempts.lock(descriptor, fcntl.LOCK_EX, time.monotonic())
                trees.remove_tree(path)
                cleared += 1
            except attempts.WaitedTooLong:
                continue
            finally:
                attempts.unlock(descriptor)
        return cleared
