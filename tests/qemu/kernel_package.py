"""The guest's kernel, from the machine's own package archive."""

import fcntl
import lzma
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.made_images import default_cache

METAPACKAGE = "linux-image-cloud-amd64"
"""Boots faster than the others: it has drivers of virtual machines only."""


class NoKernel(Exception):
    """The archive has no such package, or it can't be fetched."""


@dataclass(frozen=True, slots=True)
class Kernel:
    name: str
    image: Path
    overlay: Path
    """overlayfs, which Debian builds as a module."""


def kernel() -> Kernel:
    """Kept between runs; fetched where it isn't there (27 MB, 5 s). Raises NoKernel."""
    package = _package()
    cache = default_cache()
    cache.mkdir(parents=True, exist_ok=True)
    found = _in(cache / package)
    with (cache / "kernel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (found.image.is_file() and found.overlay.is_file()):
            for old in cache.glob("linux-image-*"):
                shutil.rmtree(old)
            _fetch(package, cache)
    return found


def _in(directory: Path) -> Kernel:
    return Kernel(directory.name, directory / "vmlinuz", directory / "overlay.ko")


def _package() -> str:
    """The package that the metapackage stands for now."""
    argv = ["apt-cache", "depends", "--important", METAPACKAGE]
    answer = _run(argv)
    if not answer:
        _run(["apt-get", "-qq", "update"])
        answer = _run(argv)
    match = re.search(r"Depends: (linux-image-\S+)", answer)
    if match is None:
        raise NoKernel(f"apt knows no package {METAPACKAGE}")
    return match[1]


def _fetch(package: str, cache: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".kernel-", dir=cache) as name:
        work = Path(name)
        download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package]
        _run(download, work)
        if not list(work.glob("*.deb")):
            # The lists are older than what the mirror holds.
            _run(["apt-get", "-qq", "update"])
            _run(download, work)
        for archive in work.glob("*.deb"):
            _run(["dpkg", "-x", str(archive), "unpacked"], work)
        images = list(work.glob("unpacked/boot/vmlinuz-*"))
        modules = list(work.glob("unpacked/**/overlay.ko*"))
        if not images or not modules:
            raise NoKernel(f"{package} can't be had from this machine's archive")
        target = work / package
        target.mkdir()
        images[0].rename(target / "vmlinuz")
        (target / "overlay.ko").write_bytes(_module(modules[0]))
        # In one step: what is in the cache is whole.
        target.rename(cache / package)


def _module(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def _run(argv: list[str], work: Path | None = None) -> str:
    done = subprocess.run(
        argv, cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    return done.stdout if done.returncode == 0 else ""
