"""Container images: a reference becomes an unpacked root file system, pulled once, shared by all.

Hostile in here are the reference, the registry and all of the image. A registry that can't be
reached doesn't stop runs of an image that is here already: its last known content is used, and a
warning says so. A registry that says no does.
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from executions.sandbox import archives, attempts, manifests, skopeo, umoci
from executions.sandbox.image_errors import (
    BY_CODE,
    ImageError,
    ImageInUse,
    ImageNotFound,
    ImageTooLarge,
    PullFailed,
    PullTimeout,
)
from executions.sandbox.image_store import Image, Tag, Tags, Unpacked, WorkAreas, file_name
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

log = logging.getLogger(__name__)

FILES_LIMIT = 1_000_000
REFRESH_SECS = 20.0
"""How long a registry may take to say whether a tag that we have has moved."""
RETRY_SECS = 30.0
"""After a registry couldn't be reached, the image that we have is used for so long unasked."""

Progress = Callable[[str, int], None]
"""Called with a phase (resolving, downloading, unpacking) and the bytes it has got to."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that is here, as `list_images` tells of it."""

    digest: str
    references: tuple[str, ...]
    size: int
    last_used: float
    """Wall clock."""


def _silent(phase: str, done: int) -> None:
    """Nobody looks on."""


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
        self.files_limit = files_limit
        self.pull_timeout = pull_timeout
        self.tag_ttl = tag_ttl
        self._images = Unpacked(root / "images")
        self._tags = Tags(root / "tags")
        self._work = WorkAreas(root / "work")
        self._attempts = root / "attempts"

    # ── Use ──────────────────────────────────────────────────────────────────────────────────────

    def cached(self, reference: str) -> Image | None:
        """The image, when it is here and needn't be asked for. Raises BadReference."""
        return self._cached(parse(reference))

    @contextlib.contextmanager
    def hold(self, reference: str, *, timeout: float | None = None) -> Iterator[Image]:
        """The image, pulled if need be; until the end of the block nothing removes it.

        `timeout` bounds the wait in seconds (default: `pull_timeout`); who gives up leaves the
        image to the others. Raises BadReference and ImageError.
        """
        wanted = parse(reference)
        deadline = time.monotonic() + (self.pull_timeout if timeout is None else timeout)
        image, descriptor = self._held(wanted, deadline)
        try:
            yield image
        finally:
            attempts.unlock(descriptor)

    def pull(self, reference: str, *, progress: Progress = _silent) -> Image:
        """Asks the registry even where the image is here and fresh. Raises like `hold`."""
        deadline = time.monotonic() + self.pull_timeout
        return self._obtain(parse(reference), deadline, progress, ask=True)

    def _cached(self, wanted: Reference) -> Image | None:
        tag = self._tags.read(str(wanted))
        if tag is None:
            return self._images.read(wanted.digest, str(wanted)) if wanted.digest else None
        age = time.time() - tag.checked
        if not (tag.imported or wanted.digest or 0 <= age < self.tag_ttl):
            return None
        return self._images.read(tag.digest, str(wanted))

    def _held(self, wanted: Reference, deadline: float) -> tuple[Image, int]:
        for _ in range(5):
            image = self._cached(wanted) or self._obtain(wanted, deadline, _silent)
            try:
                descriptor = self._images.share(image.digest, deadline)
            except attempts.WaitedTooLong:
                raise PullTimeout(f"{wanted}: it couldn't be locked in time") from None
            if descriptor is not None:
                return image, descriptor
        raise PullFailed(f"{wanted}: it was removed again each time it had been pulled")

    # ── Get ──────────────────────────────────────────────────────────────────────────────────────

    def _once(
        self,
        key: str,
        name: str,
        deadline: float,
        work: Callable[[], Image],
    ) -> Image | str:
        """Does `work`, or waits for whoever does the same. Answers the image, or its digest."""
        try:
            mine = attempts.join(self._attempts / file_name(key), deadline)
        except attempts.WaitedTooLong:
            raise PullTimeout(f"{name}: it was still being pulled when time was up") from None
        if not isinstance(mine, attempts.Attempt):
            if "code" in mine:
                raise BY_CODE[mine["code"]](mine["message"])
            return str(mine["digest"])
        outcome: dict[str, Any] | None = None
        try:
            image = work()
            outcome = {"digest": image.digest}
            return image
        except (ImageNotFound, ImageTooLarge, PullFailed) as error:
            # Those who waited for this attempt share its failure; nobody who comes later does.
            outcome = {"code": error.code, "message": str(error)}
            raise
        except OSError as error:
            raise PullFailed(f"{name}: {error}") from error
        finally:
            mine.close(outcome)

    def _obtain(
        self, wanted: Reference, deadline: float, progress: Progress, *, ask: bool = False
    ) -> Image:
        self._prepare()
        name = str(wanted)

        def work() -> Image:
            image = None if ask else self._cached(wanted)
            limit = min(deadline, time.monotonic() + self.pull_timeout)
            return image or self._resolve(wanted, limit, progress)

        for _ in range(5):
            found = self._once(name, name, deadline, work)
            image = self._images.read(found, name) if isinstance(found, str) else found
            if image is not None:
                return image
        raise PullFailed(f"{wanted}: it was removed again each time it had been pulled")

    def _resolve(self, wanted: Reference, deadline: float, progress: Progress) -> Image:
        """Asks the registry what the reference means now, and pulls it if that isn't here."""
        name = str(wanted)
        if wanted.local:
            return self._imported(name)
        tag = self._tags.read(name)
        here = self._images.read(tag.digest, name) if tag else None
        progress("resolving", 0)
        with self._work.area() as area:
            limit = min(deadline, time.monotonic() + REFRESH_SECS) if here else deadline
            try:
                manifest = skopeo.resolve(wanted, area, limit)
            except (PullFailed, PullTimeout) as error:
                if here is None or tag is None:
                    raise
                log.warning("The image that is here is used: %s", error)
                until = time.time() - self.tag_ttl + min(RETRY_SECS, self.tag_ttl)
                self._tags.write(replace(tag, checked=until))
                return here
            image = self._images.read(manifest.digest, name)
            if image is None:
                image = self._fetch(wanted, manifest, area, deadline, progress)
        self._tags.write(Tag(name, manifest.digest, time.time()))
        return image

    def _imported(self, name: str) -> Image:
        tag = self._tags.read(name)
        image = self._images.read(tag.digest, name) if tag else None
        if image is None:
            raise ImageNotFound(f"{name}: it is not here, and only `images import` can bring it")
        return image

    def _fetch(
        self,
        wanted: Reference,
        manifest: manifests.Manifest,
        area: Path,
        deadline: float,
        progress: Progress,
    ) -> Image:
        name = str(wanted)
        if manifest.download_bytes > self.size_limit:
            raise ImageTooLarge(
                f"{name}: its layers have {manifest.download_bytes} bytes, "
                f"more than the {self.size_limit} that an image may have"
            )
        exact = Reference(wanted.host, wanted.path, "", manifest.digest)

        def work() -> Image:
            image = self._images.read(manifest.digest, name)
            if image is not None:
                return image
            self._copy(skopeo.source(exact), name, area, deadline, progress)
            return self._unpack(name, manifest.digest, area, deadline, progress)

        return self._by_digest(manifest.digest, name, deadline, work)

    def _by_digest(
        self, digest: str, name: str, deadline: float, work: Callable[[], Image]
    ) -> Image:
        """Two references to one image are one pull as well."""
        for _ in range(5):
            found = self._once(digest, name, deadline, work)
            image = self._images.read(found, name) if isinstance(found, str) else found
            if image is not None:
                return image
        raise PullFailed(f"{name}: it was removed again each time it had been pulled")

    def _copy(
        self, origin: str, name: str, area: Path, deadline: float, progress: Progress
    ) -> None:
        watch = umoci.GrowthWatch(
            area,
            name,
            # An archive is spooled beside the layout, so for a moment it is there twice.
            2 * self.size_limit,
            self.files_limit,
            lambda done: progress("downloading", done),
        )
        skopeo.copy(origin, name, area, deadline, watch=watch, file_limit=self.size_limit)

    def _unpack(
        self, name: str, digest: str, area: Path, deadline: float, progress: Progress
    ) -> Image:
        """Unpacks `area`/layout and puts the image in its place, in one step."""
        staged, unpacked = area / "image", area / "unpacked"
        staged.mkdir(mode=0o700)
        unpacked.mkdir(mode=0o700)
        env = manifests.environment(umoci.config(area, name))
        watch = umoci.GrowthWatch(
            unpacked / "rootfs",
            name,
            self.size_limit,
            self.files_limit,
            lambda done: progress("unpacking", done),
        )
        usage = umoci.unpack(area, deadline, watch)
        watch.root.rename(staged / "rootfs")
        (staged / "image.json").write_text(json.dumps({"env": env, "size": usage.bytes}))
        self._images.publish(staged, digest)
        path = self._images.path(digest)
        return Image(name, digest, path / "rootfs", env, usage.bytes)

    def import_archive(self, path: Path, reference: str, *, progress: Progress = _silent) -> Image:
        """Brings an OCI archive, an OCI layout directory or a docker archive in as `reference`.

        From then on no registry is asked for that reference, until it is removed or pulled.
        Raises BadReference and ImageError.
        """
        wanted = parse(reference)
        if wanted.digest:
            raise BadReference(f"{reference!r}: an image is imported under a tag, not a digest")
        self._prepare()
        name = str(wanted)
        deadline = time.monotonic() + self.pull_timeout

        def work() -> Image:
            with self._work.area() as area:
                origin = archives.origin(path, area)
                self._copy(origin, str(path), area, deadline, progress)
                digest = umoci.digest(area)

                def unpack() -> Image:
                    here = self._images.read(digest, name)
                    return here or self._unpack(name, digest, area, deadline, progress)

                image = self._by_digest(digest, name, deadline, unpack)
            self._tags.write(Tag(name, digest, time.time(), imported=True))
            return image

        while True:
            # Another's attempt for this name isn't this archive: wait for it, then go on.
            image = self._once(f"import {name}", name, deadline, work)
            if isinstance(image, Image):
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
