"""Gets images: asks registries, lets one pull for all who wait, unpacks, and publishes in one step.

A registry that can't be reached doesn't stop runs of an image that is here already: its last known
content is used, and a warning says so. A registry that says no does.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from executions.sandbox import archives, attempts, manifests, skopeo, umoci
from executions.sandbox.image_errors import (
    BY_CODE,
    ImageNotFound,
    ImageTooLarge,
    PullFailed,
    PullTimeout,
)
from executions.sandbox.image_store import FRESH, Image, Tag, Tags, Unpacked, WorkAreas, file_name
from executions.sandbox.references import Reference

log = logging.getLogger(__name__)

REFRESH_SECS = 20.0
"""How long a registry may take to say whether a tag that we have has moved."""
RETRY_SECS = 30.0
"""After a registry couldn't be reached, the image that we have is used for so long unasked."""
TRIES = 10
"""How often a pull starts over when others remove what it got."""

Progress = Callable[[str, int], None]
"""Called with a phase (resolving, downloading, unpacking) and the bytes it has got to."""


Layers = Callable[[int, int, int], None]
"""Called with the layers that have come, how many there are, and the bytes they claim to have."""


def silent(phase: str, done: int) -> None:
    """Nobody looks on."""


def unseen(come: int, total: int, total_bytes: int) -> None:
    """Nobody counts layers."""


@dataclass(frozen=True, slots=True)
class Wish:
    """An image that somebody wants, and on which terms."""

    wanted: Reference
    deadline: float
    """Of time.monotonic; ends the wait."""
    size_limit: int
    """Bytes, as packed and as unpacked."""
    progress: Progress = silent
    layers: Layers = unseen

    @property
    def name(self) -> str:
        return str(self.wanted)


@dataclass(frozen=True, slots=True)
class Puller:
    """Works on an image store's directories, within its bounds."""

    images: Unpacked
    tags: Tags
    work: WorkAreas
    attempts: Path
    size_limit: int
    files_limit: int
    tag_ttl: float

    def obtain(self, wish: Wish, *, ready: Callable[[], Image | None], limit: float) -> Image:
        """Pulls the image, or waits for whoever does; `ready` tells whether somebody just did.

        `limit` is the seconds that a pull may take, however long the wait.
        """

        def work() -> Image:
            until = min(wish.deadline, time.monotonic() + limit)
            return ready() or self._resolve(replace(wish, deadline=until))

        return self._once(self._key(wish, wish.name), wish.name, wish.deadline, work)

    def _key(self, wish: Wish, name: str) -> str:
        """Whoever waits shares a failure: so those alone wait for each other who may have as much.

        An image of which two such pulls come to the same is published by whichever ends first.
        """
        if wish.size_limit == self.size_limit:
            return name
        return f"{name}#{wish.size_limit}"

    def _try_once(
        self,
        key: str,
        name: str,
        deadline: float,
        work: Callable[[], Image],
    ) -> Image | None:
        """Does `work`, or waits for whoever does the same. None: removed before we saw it."""
        try:
            mine = attempts.join(self.attempts / file_name(key), deadline)
        except attempts.WaitedTooLong:
            raise PullTimeout(f"{name}: it was still being pulled when time was up") from None
        if not isinstance(mine, attempts.Attempt):
            if "code" in mine:
                raise BY_CODE[mine["code"]](mine["message"])
            return self.images.read(str(mine["digest"]), name)
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

    def _once(self, key: str, name: str, deadline: float, work: Callable[[], Image]) -> Image:
        for _ in range(TRIES):
            image = self._try_once(key, name, deadline, work)
            if image is not None:
                return image
        raise PullFailed(f"{name}: it was removed again each time it had been pulled")

    def _resolve(self, wish: Wish) -> Image:
        """Asks the registry what the reference means now, and pulls it if that isn't here."""
        wanted, name, deadline = wish.wanted, wish.name, wish.deadline
        if wanted.local:
            return self._imported(name)
        tag = self.tags.read(name)
        here = self.images.read(tag.digest, name) if tag else None
        wish.progress("resolving", 0)
        with self.work.area() as area:
            limit = min(deadline, time.monotonic() + REFRESH_SECS) if here else deadline
            try:
                manifest = skopeo.resolve(wanted, area, limit)
            except (PullFailed, PullTimeout) as error:
                if here is None or tag is None:
                    raise
                log.warning("The image that is here is used: %s", error)
                until = time.time() - self.tag_ttl + min(RETRY_SECS, self.tag_ttl)
                self.tags.write(replace(tag, checked=until))
                return here
            image = self.images.read(manifest.digest, name)
            if image is None:
                image = self._fetch(wish, manifest, area)
        self.tags.write(Tag(name, manifest.digest, time.time()))
        return image

    def _imported(self, name: str) -> Image:
        tag = self.tags.read(name)
        image = self.images.read(tag.digest, name) if tag else None
        if image is None:
            raise ImageNotFound(f"{name}: it is not here, and only `images import` can bring it")
        return image

    def _fetch(self, wish: Wish, manifest: manifests.Manifest, area: Path) -> Image:
        wanted, name = wish.wanted, wish.name
        if manifest.download_bytes > wish.size_limit:
            raise ImageTooLarge(
                f"{name}: its layers have {manifest.download_bytes} bytes, "
                f"more than the {wish.size_limit} that an image may have"
            )
        exact = Reference(wanted.host, wanted.path, "", manifest.digest)

        def work() -> Image:
            image = self.images.read(manifest.digest, name)
            if image is not None:
                return image
            wish.progress("downloading", 0)
            self._copy(wish, skopeo.source(exact), name, area, manifest)
            return self._unpack(wish, manifest.digest, area)

        return self._once(self._key(wish, manifest.digest), name, wish.deadline, work)

    def _copy(
        self,
        wish: Wish,
        origin: str,
        name: str,
        area: Path,
        manifest: manifests.Manifest | None = None,
    ) -> None:
        def report(done: int) -> None:
            if manifest is not None:
                # The configuration is a blob as well, and comes last.
                come = min(manifest.layers, _entries(area / "layout" / "blobs" / "sha256"))
                wish.layers(come, manifest.layers, manifest.download_bytes)
            wish.progress("downloading", done)

        watch = umoci.GrowthWatch(
            area,
            name,
            # An archive is spooled beside the layout, so for a moment it is there twice.
            2 * wish.size_limit,
            self.files_limit,
            report,
        )
        skopeo.copy(origin, name, area, wish.deadline, watch=watch, file_limit=wish.size_limit)
        if manifest is not None:
            wish.layers(manifest.layers, manifest.layers, manifest.download_bytes)

    def _unpack(self, wish: Wish, digest: str, area: Path) -> Image:
        """Unpacks `area`/layout and puts the image in its place, in one step."""
        name = wish.name
        wish.progress("unpacking", 0)
        staged, unpacked = area / "image", area / "unpacked"
        staged.mkdir(mode=0o700)
        unpacked.mkdir(mode=0o700)
        config = umoci.config(area, name)
        env, platform = manifests.environment(config), manifests.platform_of(config)
        watch = umoci.GrowthWatch(
            unpacked / "rootfs",
            name,
            wish.size_limit,
            self.files_limit,
            lambda done: wish.progress("unpacking", done),
        )
        usage = umoci.unpack(area, wish.deadline, watch)
        watch.root.rename(staged / "rootfs")
        known = {"env": env, "size": usage.bytes, "platform": platform}
        (staged / "image.json").write_text(json.dumps(known))
        (staged / FRESH).touch()
        self.images.publish(staged, digest)
        path = self.images.path(digest)
        return Image(name, digest, path / "rootfs", env, usage.bytes, platform)

    def import_archive(self, path: Path, wish: Wish) -> Image:
        name = wish.name
        with self.work.area() as area:
            self._copy(wish, archives.origin(path, area), str(path), area)
            digest = umoci.digest(area)

            def work() -> Image:
                here = self.images.read(digest, name)
                return here or self._unpack(wish, digest, area)

            image = self._once(digest, name, wish.deadline, work)
        self.tags.write(Tag(name, digest, time.time(), imported=True))
        return image


def _entries(directory: Path) -> int:
    try:
        return sum(1 for _ in directory.iterdir())
    except FileNotFoundError:
        return 0
