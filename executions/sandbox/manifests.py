"""Image manifests and indexes, read without trusting them: digest, sizes, this platform's image."""

import hashlib
import json
import platform
from dataclasses import dataclass
from typing import Any

MANIFEST_LIMIT = 4 << 20
"""Bytes. The containers tools read no larger one either."""
LAYERS_LIMIT = 512

GO_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}
ARCHITECTURE = GO_ARCHITECTURES.get(platform.machine(), platform.machine())
VARIANTS = {"arm64": ("v8", ""), "arm": ("v7", "v6", "v5", "")}
"""Best first; what an architecture has not listed here goes without."""


class BadManifest(Exception):
    """Not a manifest we can use; the message says why."""


class NoSuchPlatform(Exception):
    """An index without an image for this machine; the message says what it has."""


@dataclass(frozen=True, slots=True)
class Manifest:
    digest: str
    download_bytes: int
    """Of all layers, as packed. What the manifest claims: watch the download all the same."""
    layers: int = 0


def digest_of(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def load(raw: bytes) -> dict[str, Any]:
    if len(raw) > MANIFEST_LIMIT:
        raise BadManifest(f"its manifest is larger than {MANIFEST_LIMIT} bytes")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadManifest("its manifest is not JSON") from None
    if not isinstance(value, dict):
        raise BadManifest("its manifest is not a JSON object")
    if value.get("schemaVersion") != 2:
        raise BadManifest("its manifest is of the obsolete schema version 1")
    return value


def is_index(document: dict[str, Any]) -> bool:
    return isinstance(document.get("manifests"), list)


def choose(index: dict[str, Any], architecture: str = ARCHITECTURE) -> str:
    """The digest of the image for Linux on this machine. Raises NoSuchPlatform."""
    found: dict[str, str] = {}
    offered = set()
    for item in index["manifests"][:1000]:
        described = item.get("platform") if isinstance(item, dict) else None
        if not isinstance(described, dict) or not isinstance(item.get("digest"), str):
            continue
        variant = str(described.get("variant") or "")
        offered.add(f"{described.get('os')}/{described.get('architecture')}"[:40])
        if described.get("os") == "linux" and described.get("architecture") == architecture:
            found.setdefault(variant, item["digest"])
    for variant in VARIANTS.get(architecture, ("", "v1")):
        if variant in found:
            return found[variant]
    has = ", ".join(sorted(offered)[:10]) or "nothing that could run"
    raise NoSuchPlatform(f"it has no image for linux/{architecture} (it has {has})")


def image_manifest(raw: bytes) -> Manifest:
    """Raises BadManifest."""
    document = load(raw)
    layers = document.get("layers")
    if not isinstance(layers, list) or not isinstance(document.get("config"), dict):
        raise BadManifest("its manifest describes no image")
    if len(layers) > LAYERS_LIMIT:
        raise BadManifest(f"it has more than {LAYERS_LIMIT} layers")
    return Manifest(digest_of(raw), sum(_layer_size(item) for item in layers), len(layers))


def _layer_size(item: object) -> int:
    size = item.get("size") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(size, int) or size < 0:
        raise BadManifest("a layer in its manifest has no size")
    if item.get("urls"):
        # The tools would fetch these from wherever the author says, from inside of our network.
        raise BadManifest("a layer of it lies outside of its registry")
    return size


def environment(config: object) -> tuple[str, ...]:
    """`Env` of an image's configuration: only strings `K=V` that a program can be given."""
    inner = config.get("config") if isinstance(config, dict) else None
    env = inner.get("Env") if isinstance(inner, dict) else None
    if not isinstance(env, list):
        return ()
    return tuple(item for item in env[:1000] if isinstance(item, str) and _is_variable(item))


def platform_of(config: object) -> str:
    """`os/architecture` of an image's configuration, as the image tells; empty without."""
    system = config.get("os") if isinstance(config, dict) else None
    architecture = config.get("architecture") if isinstance(config, dict) else None
    if not isinstance(system, str) or not isinstance(architecture, str):
        return ""
    return f"{system}/{architecture}"[:64]


def _is_variable(item: str) -> bool:
    name, equals, _ = item.partition("=")
    if not name or not equals or "\0" in item:
        return False
    try:
        # The kernel takes no longer string: MAX_ARG_STRLEN, its NUL included.
        return len(item.encode()) < 131072
    except UnicodeEncodeError:
        return False
