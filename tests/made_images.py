"""Container images made on the spot: a busybox, a Python, and what a hostile author would write."""

import dataclasses
import fcntl
import gzip
import hashlib
import io
import json
import os
import platform
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from executions.sandbox import debian_image

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One member of a layer, as hostile as you like: nothing about it is checked."""

    name: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def info(self) -> tarfile.TarInfo:
        info = tarfile.TarInfo(self.name)
        info.size = len(self.content)
        info.type = self.kind
        info.linkname = self.target
        info.mode, info.uid, info.gid = self.mode, self.uid, self.gid
        info.devmajor, info.devminor = self.device
        info.pax_headers = dict(self.pax)
        return info


def directory(name: str, mode: int = 0o755) -> Entry:
    return Entry(name, kind=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.SYMTYPE, target=target, mode=0o777)


def hard_link(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.LNKTYPE, target=target)


def layer(entries: Iterable[Entry]) -> bytes:
    """An uncompressed tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            archive.addfile(entry.info(), io.BytesIO(entry.content))
    return buffer.getvalue()


class Layout:
    """An OCI layout directory that is written blob by blob."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (self.root / "blobs" / "sha256" / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def document(self, value: Any, media_type: str) -> dict[str, Any]:
        return self.blob(json.dumps(value, sort_keys=True).encode(), media_type)

    def index(self, manifests: Sequence[dict[str, Any]]) -> None:
        value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}
        (self.root / "index.json").write_text(json.dumps(value))


def add_image(
    layout: Layout,
    layers: Sequence[bytes | Sequence[Entry]],
    config: Mapping[str, Any] | None = None,
    *,
    architecture: str = ARCHITECTURE,
) -> dict[str, Any]:
    """Writes one image into the layout and returns its manifest's descriptor.

    Layers are entries, or bytes of a tar archive, compressed already or not.
    """
    diff_ids, descriptors = [], []
    for item in layers:
        tar = item if isinstance(item, bytes) else layer(item)
        if tar.startswith(b"\x1f\x8b"):
            packed = tar
            tar = gzip.decompress(tar) if len(tar) < 1 << 20 else b""
        else:
            packed = gzip.compress(tar, compresslevel=1, mtime=0)
        diff_ids.append(f"sha256:{hashlib.sha256(tar).hexdigest()}")
        descriptors.append(layout.blob(packed, LAYER))
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": dict({"Env": [PATH]} if config is None else config),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": layout.document(document, CONFIG),
        "layers": descriptors,
    }
    return layout.document(manifest, MANIFEST)


def oci_image(
    destination: Path,
    layers: Sequence[bytes | Sequence[Entry]],
    config: Mapping[str, Any] | None = None,
) -> Path:
    """An OCI layout directory at `destination` that holds one image."""
    layout = Layout(destination)
    layout.index([add_image(layout, layers, config)])
    return destination


def busybox_entries() -> list[Entry]:
    """The machine's static busybox with all of its applets, /etc/passwd and a /tmp."""
    binary = next(path for path in map(Path, ("/bin/busybox", "/usr/bin/busybox")) if path.exists())
    listing = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True)
    applets = sorted(set(listing.stdout.split()) - {"busybox"})
    accounts = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n"
    return [
        *(directory(name) for name in ("bin", "etc", "root", "usr", "usr/bin", "var")),
        directory("tmp", 0o1777),
        Entry("bin/busybox", binary.read_bytes(), mode=0o755),
        *(symlink(f"bin/{applet}", "busybox") for applet in applets),
        symlink("usr/bin/env", "../../bin/busybox"),
        Entry("etc/passwd", accounts),
        Entry("etc/group", b"root:x:0:\nnogroup:x:65534:\n"),
    ]


def busybox_image(destination: Path, config: Mapping[str, Any] | None = None) -> Path:
    """An OCI layout directory of a busybox image; tens of milliseconds."""
    return oci_image(destination, [busybox_entries()], config or {"Env": [PATH], "Cmd": ["sh"]})


def default_cache() -> Path:
    if os.geteuid() == 0:
        return Path("/var/cache/boxer-tests")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "boxer-tests"


def python_image(cache_dir: Path | None = None) -> Path:
    """An OCI archive of a Python image, kept between runs; built when it isn't there (25 s)."""
    cache = cache_dir or default_cache()
    cache.mkdir(parents=True, exist_ok=True)
    recipe = hashlib.sha256(Path(debian_image.__file__).read_bytes()).hexdigest()[:16]
    archive = cache / f"python-{recipe}.tar"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _whole(archive):
            for old in cache.glob("python-*.tar"):
                old.unlink()
            debian_image.build_python_image(archive)
    return archive


def _whole(archive: Path) -> bool:
    """A cached file is believed only when it reads to its end as an OCI archive."""
    try:
        with tarfile.open(archive) as members:
            return "oci-layout" in members.getnames()
    except (OSError, tarfile.TarError):
        return False
