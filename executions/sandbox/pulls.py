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


def silent(phase: str, done: int) -> None:
    """Nobody looks on."""


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

    def obtain(
        self,
        wanted: Reference,
        deadline: float,
        progress: Progress,
        *,
        ready: Callable[[], Image | None],
        limit: float,
    ) -> Image:
        """Pulls the image, or waits for whoever does; `ready` tells whether somebody just did.

        `deadline` ends our wait, `limit` is the seconds that a pull may take.
        """
        name = str(wanted)

        def work() -> Image:
            until = min(deadline, time.monotonic() + limit)
            return ready() or self._resolve(wanted, until, progress)

        return self._once(name, name, deadline, work)

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

    def _resolve(self, wanted: Reference, deadline: float, progress: Progress) -> Image:
        """Asks the registry what the reference means now, and pulls it if that isn't here."""
        name = str(wanted)
        if wanted.local:
            return self._imported(name)
        tag = self.tags.read(name)
        here = self.images.read(tag.digest, name) if tag else None
        progress("resolving", 0)
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
                image = self._fetch(wanted, manifest, area, deadline, progress)
        self.tags.write(Tag(name, manifest.digest, time.time()))
        return image

    def _imported(self, name: str) -> Image:
        tag = self.tags.read(name)
        image = self.images.read(tag.digest, name) if tag else None
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
            image = self.images.read(manifest.digest, name)
            if image is not None:
                return image
            self._copy(skopeo.source(exact), name, area, deadline, progress)
            return self._unpack(name, manifest.digest, area, deadline, progress)

        return self._once(manifest.digest, name, deadline, work)

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
        (staged / FRESH).touch()
        self.images.publish(staged, digest)
        path = self.images.path(digest)
        return Image(name, digest, path / "rootfs", env, usage.bytes)

    def import_archive(
        self, path: Path, wanted: Reference, deadline: float, progress: Progress
    ) -> Image:
        name = str(wanted)
        with self.work.area() as area:
            self._copy(archives.origin(path, area), str(path), area, deadline, progress)
            digest = umoci.digest(area)

            def work() -> Image:
                here = self.images.read(digest, name)
                return here or self._unpack(name, digest, area, deadline, progress)

            image = self._once(digest, name, deadline, work)
        self.tags.write(Tag(name, digest, time.time(), imported=True))
        return image
