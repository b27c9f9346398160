"""Container images: a reference becomes an unpacked root file system, pulled once, shared by all.

Hostile in here are the reference, the registry and all of the image.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from executions.sandbox import attempts
from executions.sandbox.image_errors import (
    ImageError,
    ImageInUse,
    ImageNotFound,
    ImageTooLarge,
    PullFailed,
    PullTimeout,
)
from executions.sandbox.image_store import Image, Tags, Unpacked, WorkAreas
from executions.sandbox.pulls import TRIES, Layers, Progress, Puller, Wish, silent, unseen
from executions.sandbox.references import BadReference, Reference, normalise, parse

__all__ = [
    "BadReference",
    "Image",
    "ImageError",
    "ImageInUse",
    "ImageNotFound",
    "ImageStore",
    "ImageTooLarge",
    "PullFailed",
    "PullTimeout",
    "StoredImage",
    "normalise",
]

FILES_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that is here, as `list_images` tells of it."""

    digest: str
    references: tuple[str, ...]
    size: int
    last_used: float
    """Wall clock."""


class ImageStore:
    """Images below `root`, shared by any number of threads and processes.

    `size_limit` bounds an image's bytes, as packed and as unpacked, `pull_timeout` a whole pull in
    seconds; a tag is resolved again after `tag_ttl` seconds. The root is for its owner only: images
    hold set-user-ID programs that no other user of the host may get at.
    """

    def __init__(
        self,
        root: Path,
        *,
        size_limit: int,
        pull_timeout: float,
        tag_ttl: float,
        files_limit: int = FILES_LIMIT,
    ) -> None:
        self.root = root
        self.size_limit = size_limit
        self.pull_timeout = pull_timeout
        self.tag_ttl = tag_ttl
        self._images = Unpacked(root / "images")
        self._tags = Tags(root / "tags")
        self._work = WorkAreas(root / "work")
        self._attempts = root / "attempts"
        self._puller = Puller(
            images=self._images,
            tags=self._tags,
            work=self._work,
            attempts=self._attempts,
            size_limit=size_limit,
            files_limit=files_limit,
            tag_ttl=tag_ttl,
        )

    # ── Use ──────────────────────────────────────────────────────────────────────────────────────

    def cached(self, reference: str) -> Image | None:
        """The image, when it is here and needn't be asked for. Raises BadReference."""
        return self._cached(parse(reference))

    @contextlib.contextmanager
    def hold(
        self,
        reference: str,
        *,
        timeout: float | None = None,
        pull: bool = True,
        size_limit: int | None = None,
        progress: Progress = silent,
    ) -> Iterator[Image]:
        """The image, pulled if need be; until the end of the block nothing removes it.

        `timeout` bounds the wait in seconds (default: `pull_timeout`); who gives up leaves the
        image to the others. Without `pull` no registry is asked: what is here will do, however old.
        `size_limit` can only lower the store's own. Raises BadReference and ImageError.
        """
        wish = self._wish(reference, timeout, size_limit, progress)
        image, descriptor = self._held(wish, self._here if not pull else self._obtain)
        try:
            yield image
        finally:
            attempts.unlock(descriptor)

    def pull(
        self,
        reference: str,
        *,
        progress: Progress = silent,
        layers: Layers = unseen,
        size_limit: int | None = None,
    ) -> Image:
        """Asks the registry even where the image is here and fresh. Raises like `hold`."""
        wish = self._wish(reference, None, size_limit, progress, layers)
        image = self._obtain(wish, ask=True)
        self._images.settle(image.digest)
        return image

    def _wish(
        self,
        reference: str,
        timeout: float | None,
        size_limit: int | None,
        progress: Progress,
        layers: Layers = unseen,
    ) -> Wish:
        return Wish(
            parse(reference),
            time.monotonic() + (self.pull_timeout if timeout is None else timeout),
            self.size_limit if size_limit is None else min(size_limit, self.size_limit),
            progress,
            layers,
        )

    def _here(self, wish: Wish) -> Image:
        """What the reference meant last, without asking anybody."""
        tag = self._tags.read(wish.name)
        digest = tag.digest if tag else wish.wanted.digest
        image = self._images.read(digest, wish.name) if digest else None
        if image is None:
            raise ImageNotFound(f"{wish.name}: it is not here")
        return image

    def _cached(self, wanted: Reference) -> Image | None:
        tag = self._tags.read(str(wanted))
        if tag is None:
            return self._images.read(wanted.digest, str(wanted)) if wanted.digest else None
        age = time.time() - tag.checked
        if not (tag.imported or wanted.digest or 0 <= age < self.tag_ttl):
            return None
        return self._images.read(tag.digest, str(wanted))

    def _held(self, wish: Wish, obtain: Callable[[Wish], Image]) -> tuple[Image, int]:
        wanted = wish.wanted
        for _ in range(TRIES):
            image = self._cached(wanted) or obtain(wish)
            try:
                descriptor = self._images.share(image.digest, wish.deadline)
            except attempts.WaitedTooLong:
                raise PullTimeout(f"{wanted}: it couldn't be locked in time") from None
            if descriptor is not None:
                return image, descriptor
        raise PullFailed(f"{wanted}: it was removed again each time it had been pulled")

    def _obtain(self, wish: Wish, *, ask: bool = False) -> Image:
        self._prepare()
        return self._puller.obtain(
            wish,
            ready=lambda: None if ask else self._cached(wish.wanted),
            limit=self.pull_timeout,
        )

    def import_archive(self, path: Path, reference: str, *, progress: Progress = silent) -> Image:
        """Brings an OCI archive, an OCI layout directory or a docker archive in as `reference`.

        From then on no registry is asked for that reference, until it is removed or pulled.
        Raises BadReference and ImageError.
        """
        wish = self._wish(reference, None, None, progress)
        if wish.wanted.digest:
            raise BadReference(f"{reference!r}: an image is imported under a tag, not a digest")
        self._prepare()
        try:
            image = self._puller.import_archive(path, wish)
            self._images.settle(image.digest)
        except OSError as error:
            raise PullFailed(f"{path}: {error}") from error
        return image

    # ── Keep ─────────────────────────────────────────────────────────────────────────────────────

    def list_images(self) -> list[StoredImage]:
        """All images that are here, the one used last first."""
        tags = self._tags.all()
        found = []
        for digest in self._images.digests():
            image = self._images.read(digest, "")
            if image is not None:
                named = tuple(tag.reference for tag in tags if tag.digest == digest)
                used = self._images.last_used(digest)
                found.append(StoredImage(digest, named, image.size, used))
        return sorted(found, key=lambda image: image.last_used, reverse=True)

    def changed(self) -> tuple[int, ...]:
        """Another value when an image or a tag has come or gone; no image is looked at."""
        roots = (self._images.root / "sha256", self._images.root, self._tags.root)
        return tuple(_modified(root) for root in roots)

    def remove(self, reference: str) -> None:
        """Removes a reference, and its image unless another reference names it; or, given a digest
        `sha256:…`, the image and all references to it.

        Raises BadReference, ImageNotFound, ImageInUse.
        """
        self._prepare()
        if reference.startswith("sha256:") and len(reference) == 71 and reference[7:].isalnum():
            self._remove_image(reference)
            return
        wanted = parse(reference)
        tag = self._tags.read(str(wanted))
        digest = tag.digest if tag else wanted.digest
        if not digest:
            raise ImageNotFound(f"{wanted}: no such image here")
        if any(other.reference != str(wanted) for other in self._tags.of(digest)):
            self._tags.delete(str(wanted))
            return
        try:
            self._remove_image(digest)
        except ImageNotFound:
            if tag is None:
                raise ImageNotFound(f"{wanted}: no such image here") from None
        self._tags.delete(str(wanted))

    def prune(self, keep_bytes: int) -> list[StoredImage]:
        """Removes the images used longest ago until `keep_bytes` are left, and tells which.

        Imported ones too; never one in use.
        """
        self._prepare()
        images = self.list_images()
        total = sum(image.size for image in images)
        removed = []
        for image in reversed(images):
            if total <= keep_bytes:
                break
            try:
                self._remove_image(image.digest)
            except (ImageInUse, ImageNotFound):
                continue
            total -= image.size
            removed.append(image)
        return removed

    def clear_leftovers(self) -> int:
        """Removes what pulls and removals left that were killed; returns how many there were."""
        self._prepare()
        self._tags.clear()
        return self._work.clear() + attempts.clear(self._attempts)

    def _remove_image(self, digest: str) -> None:
        with self._work.area() as area:
            self._images.take_away(digest, area / "image")
            for tag in self._tags.of(digest):
                self._tags.delete(tag.reference)

    def _prepare(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for directory in (self._images.root, self._tags.root, self._work.root, self._attempts):
            directory.mkdir(mode=0o700, exist_ok=True)


def _modified(directory: Path) -> int:
    try:
        return directory.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
