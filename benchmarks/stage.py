"""What measurements run against: two services and bare runsc on one unpacked image."""

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bare import Bare, bare_runsc
from benchmarks.service import Service, given_settings, share_images
from executions.sandbox import debian_image
from executions.sandbox.images import ImageStore

IMAGE = "boxer.local/python:debian"
COMMAND = ("python3", "-c", "print('hello')")
PRINTED = b"hello\n"
POOL_SIZE = 4
UPLOAD_LIMIT = 128 << 20
BEGAN = time.monotonic()


@dataclass(frozen=True, slots=True)
class Stage:
    """`warm` has a pool that is full between runs, `cold` has none; both have one image store."""

    warm: Service
    cold: Service
    bare: Bare
    archive: Path

    def settle(self) -> None:
        """Nothing boots and nothing is tidied up any more."""
        self.warm.settle()
        self.cold.settle()


@contextmanager
def stage(archive: Path | None, registries_conf: Path, *, slots: int) -> Iterator[Stage]:
    """Everything started; in the end nothing of it is left."""
    archive = archive or python_archive()
    given = given_settings()
    common = {**given, "CONTAINERS_REGISTRIES_CONF": str(registries_conf)}
    with ExitStack() as stack:
        pinned = {"BOXER_POOL_PINNED": " ".join([IMAGE] * POOL_SIZE)}
        limit = {"BOXER_UPLOAD_LIMIT_BYTES": str(UPLOAD_LIMIT)}
        warm = Service({**common, **pinned, **limit}, pool_size=POOL_SIZE)
        stack.callback(warm.stop)
        cold = Service(common, pool_size=0)
        stack.callback(cold.stop)  # before the other, whose images it uses
        say("bringing in the image")
        warm.manage("images", "import", str(archive), IMAGE)
        share_images(warm, cold)
        rootfs = stack.enter_context(_held(warm))
        say("starting two services, one with a pool and one without")
        for service in (warm, cold):
            service.launch()
        for service in (warm, cold):
            service.wait_until_ready()
        bare = stack.enter_context(bare_runsc(rootfs, COMMAND, slots=slots))
        yield Stage(warm, cold, bare, archive)


@contextmanager
def _held(service: Service) -> Iterator[Path]:
    """The unpacked image, which nothing removes meanwhile."""
    store = ImageStore(service.home / "images", size_limit=10 << 30, pull_timeout=60, tag_ttl=86400)
    with store.hold(IMAGE) as image:
        yield image.rootfs


def python_archive() -> Path:
    """A Python image of this machine's own packages; built once and kept, if it can be."""
    source = Path(debian_image.__file__).read_bytes() + debian_image.machine_source().line.encode()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "boxer-bench"
    archive = cache / f"python-{hashlib.sha256(source).hexdigest()[:12]}.tar"
    if not archive.exists():
        say("building a Python image (once; about 40 s)")
        for old in cache.glob("python-*.tar"):
            with contextlib.suppress(OSError):
                old.unlink()
        debian_image.build_python_image(archive)
    return archive


def say(what: str) -> None:
    print(f"bench: {time.monotonic() - BEGAN:4.0f} s: {what}", file=sys.stderr, flush=True)
