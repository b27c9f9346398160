"""A hostile image, made on the spot, is unpacked as any other; nothing outside its root changes."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from executions.doctor.findings import Broken
from executions.doctor.ward import MIB, Ward
from executions.sandbox.image_errors import ImageError
from executions.sandbox.images import ImageStore

REFERENCE = "boxer.local/doctor:hostile"
_TYPE = "application/vnd.oci.image"
_MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}

Entry = tuple[str, bytes, str]
"""Name, type and target of a member of a layer; a regular file holds its own name."""


def hostile_layers(victim: Path) -> Sequence[Sequence[Entry]]:
    """Ways out of a root that unpackers have gone. `victim` is a directory with a file `keep`."""
    up = "../" * 30 + str(victim).removeprefix("/")
    file, link, hard = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    return (
        [(f"{victim}/absolute", file, ""), (f"{up}/dots", file, "")],
        [("d", link, str(victim)), ("e", link, up), ("f", link, f"{victim}/keep")],
        [("d/through", file, ""), ("e/through", file, ""), ("f", file, "")],
        [("h", hard, f"{up}/keep"), (f"{up}/.wh.keep", file, ""), ("d/.wh.keep", file, "")],
        [("inside", file, "")],
    )


def unpacker(ward: Ward) -> str:
    victim = ward.area / "victim"
    victim.mkdir()
    (victim / "keep").write_text("kept")
    layers = hostile_layers(victim)
    refused = 0
    # Each by itself too: one that is refused would keep the rest from being tried.
    for number, chosen in enumerate([layers[:3], layers[3:]]):
        refused += _unpack(ward.area / f"hostile-{number}", chosen)
    left = {path.name: path.read_text() for path in victim.iterdir()}
    if left != {"keep": "kept"}:
        raise Broken(f"unpacking an image changed a directory outside of it: {sorted(left)}")
    return f"two hostile images changed nothing; {refused} of them refused outright"


def _unpack(area: Path, layers: Sequence[Sequence[Entry]]) -> bool:
    """Whether the image was refused."""
    _write_layout(area / "layout", layers)
    store = ImageStore(area / "store", size_limit=MIB, pull_timeout=30, tag_ttl=0)
    try:
        store.import_archive(area / "layout", REFERENCE)
    except ImageError:
        return True
    return False


def _write_layout(root: Path, layers: Sequence[Sequence[Entry]]) -> None:
    """An OCI layout directory; github.com/opencontainers/image-spec, image-layout.md."""
    (root / "blobs" / "sha256").mkdir(parents=True)
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    tars = [_tar(layer) for layer in layers]
    config = {
        "architecture": _MACHINE.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [_digest(tar) for tar in tars]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_TYPE}.manifest.v1+json",
        "config": _blob(root, json.dumps(config).encode(), "config.v1+json"),
        "layers": [_blob(root, tar, "layer.v1.tar") for tar in tars],
    }
    described = _blob(root, json.dumps(manifest).encode(), "manifest.v1+json")
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))


def _blob(root: Path, content: bytes, kind: str) -> dict[str, Any]:
    digest = _digest(content)
    (root / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(content)
    return {"mediaType": f"{_TYPE}.{kind}", "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _tar(entries: Sequence[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, target in entries:
            member = tarfile.TarInfo(name)
            content = name.encode() if kind == tarfile.REGTYPE else b""
            member.type, member.linkname, member.size = kind, target, len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
