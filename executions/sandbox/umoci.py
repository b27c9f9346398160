"""The only caller of umoci: unpacks the image of an OCI layout, within bounds."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from executions.sandbox import manifests, tools, trees
from executions.sandbox.image_errors import ImageTooLarge, PullFailed, PullTimeout


@dataclass(slots=True)
class GrowthWatch:
    """Ends whoever fills a directory beyond its limits; call it again and again.

    Walking costs more the more there is, so it pauses four times as long as a walk took. When the
    file system fills quicker than that, it looks at once.
    """

    root: Path
    name: str
    bytes_limit: int
    files_limit: int
    report: Callable[[int], None]
    _next: float = 0.0
    _free: int = field(default=0)

    def __call__(self) -> None:
        free = self._free_bytes()
        if time.monotonic() < self._next and self._free - free < self.bytes_limit // 4:
            return
        self._free = free
        started = time.monotonic()
        usage = self.check()
        self._next = time.monotonic() + 4 * (time.monotonic() - started)
        self.report(usage.bytes)

    def check(self) -> trees.Usage:
        """Raises ImageTooLarge, PullFailed."""
        limits = {"bytes_limit": self.bytes_limit, "files_limit": self.files_limit}
        try:
            usage = trees.measure(self.root, **limits)
        except FileNotFoundError:
            return trees.Usage(0, 0)
        except trees.TooDeep as error:
            raise PullFailed(f"{self.name}: {error}") from None
        if usage.bytes > self.bytes_limit:
            raise ImageTooLarge(f"{self.name}: it is larger than {self.bytes_limit} bytes")
        if usage.files > self.files_limit:
            raise ImageTooLarge(f"{self.name}: it has more than {self.files_limit} files")
        return usage

    def _free_bytes(self) -> int:
        status = os.statvfs(self.root.parent)
        return status.f_bavail * status.f_frsize


def unpack(area: Path, deadline: float, watch: GrowthWatch) -> trees.Usage:
    """Unpacks the tag `image` of `area`/layout to `watch.root`, whose parent holds nothing else.

    A whiteout entry `.wh...` makes umoci remove the parent of the root file system: so that must
    be a directory nobody misses. Leaves no device nodes.
    Raises ImageTooLarge, PullFailed, PullTimeout.
    """
    argv = ["umoci", "raw", "unpack", "--image", "layout:image", str(watch.root.relative_to(area))]
    # One page more than the limit, so that a file can't be cut off at it without being noticed.
    file_limit = watch.bytes_limit + 4096
    try:
        done = tools.run(argv, area=area, deadline=deadline, watch=watch, file_limit=file_limit)
    except tools.ToolMissing as error:
        raise PullFailed(f"{watch.name}: {error}") from None
    except tools.ToolTimeout:
        raise PullTimeout(f"{watch.name}: unpacking it took too long") from None
    if done.file_too_large:
        raise ImageTooLarge(f"{watch.name}: it is larger than {watch.bytes_limit} bytes")
    if done.returncode:
        raise PullFailed(f"{watch.name}: it can't be unpacked: {done.last_lines}")
    if not watch.root.is_dir() or watch.root.is_symlink():
        raise PullFailed(f"{watch.name}: unpacking it left no root file system")
    usage = watch.check()
    trees.defuse(watch.root)
    return usage


def config(area: Path, name: str) -> Any:
    """The configuration of the tag `image` of `area`/layout. Raises PullFailed."""
    layout = area / "layout"
    try:
        index = manifests.load((layout / "index.json").read_bytes())
        manifest = manifests.load(_blob(layout, index["manifests"][0]))
        return json.loads(_blob(layout, manifest["config"]))
    except (manifests.BadManifest, LookupError, TypeError, ValueError, RecursionError) as error:
        raise PullFailed(f"{name}: its configuration can't be read: {error}") from None


def digest(area: Path) -> str:
    """The digest of the manifest of `area`/layout."""
    index = manifests.load((area / "layout" / "index.json").read_bytes())
    return str(index["manifests"][0]["digest"])


def _blob(layout: Path, descriptor: dict[str, str]) -> bytes:
    """skopeo wrote the layout and checked its digests; their form is checked once more."""
    algorithm, _, encoded = descriptor["digest"].partition(":")
    if not (algorithm.isalnum() and encoded.isalnum()):
        raise manifests.BadManifest("it has a malformed digest")
    with (layout / "blobs" / algorithm / encoded).open("rb") as file:
        return file.read(manifests.MANIFEST_LIMIT + 1)
