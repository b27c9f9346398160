"""The only caller of skopeo: asks registries for manifests, and copies images into OCI layouts."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from executions.sandbox import manifests, tools
from executions.sandbox.image_errors import ImageNotFound, ImageTooLarge, PullFailed, PullTimeout
from executions.sandbox.references import Reference

POLICIES = ("~/.config/containers/policy.json", "/etc/containers/policy.json")

NOT_FOUND = re.compile(
    r"manifest unknown|name unknown|repository name not known|blob unknown to registry"
    r"|unauthorized|authentication required|denied|forbidden"
    r"|(status|code):? 40[134]|40[134] \(|404 not found|no such manifest|was deleted or has expired"
    r"|does not exist|invalid username/password|unable to retrieve auth token",
    re.IGNORECASE,
)
"""What registries say of an image that isn't there, or isn't for us."""


def options(area: Path) -> list[str]:
    """Configuration is the containers tools' own; what the environment names comes first."""
    chosen = ["--override-os", "linux", "--tmpdir", str(area)]
    registries = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    if registries:
        # skopeo before 1.11 doesn't read the variable itself.
        chosen += ["--registries-conf", registries]
    if not any(Path(policy).expanduser().exists() for policy in POLICIES):
        chosen.append("--insecure-policy")
    return chosen


def resolve(reference: Reference, area: Path, deadline: float) -> manifests.Manifest:
    """The manifest of this machine's image behind the reference.

    Raises ImageNotFound, PullFailed, PullTimeout.
    """
    try:
        raw = _manifest(reference, area, deadline)
        document = manifests.load(raw)
        if manifests.is_index(document):
            digest = manifests.choose(document)
            chosen = Reference(reference.host, reference.path, "", digest)
            raw = _manifest(chosen, area, deadline)
        return manifests.image_manifest(raw)
    except manifests.NoSuchPlatform as error:
        raise ImageNotFound(f"{reference}: {error}") from None
    except manifests.BadManifest as error:
        raise PullFailed(f"{reference}: {error}") from None


def _manifest(reference: Reference, area: Path, deadline: float) -> bytes:
    argv = ["skopeo", *options(area), "inspect", "--raw", source(reference)]
    raw = _run(argv, str(reference), area, deadline).stdout
    if reference.digest and manifests.digest_of(raw) != reference.digest:
        raise manifests.BadManifest("its registry answered with another manifest")
    return raw


def source(reference: Reference) -> str:
    """skopeo takes a tag or a digest, not both."""
    if reference.digest:
        return f"docker://{reference.name}@{reference.digest}"
    return f"docker://{reference.name}:{reference.tag}"


def copy(
    origin: str,
    name: str,
    area: Path,
    deadline: float,
    *,
    watch: Callable[[], None],
    file_limit: int,
) -> None:
    """Copies into the OCI layout `area`/layout, under the tag `image`.

    `origin` is skopeo's own name of the source, `name` what people call it. Layers in other
    compressions are packed anew: umoci only knows gzip.
    """
    argv = ["skopeo", *options(area), "copy", "--quiet", "--remove-signatures"]
    argv += ["--dest-compress-format", "gzip", origin, "oci:layout:image"]
    _run(argv, name, area, deadline, watch=watch, file_limit=file_limit)


def _run(
    argv: list[str],
    name: str,
    area: Path,
    deadline: float,
    *,
    watch: Callable[[], None] | None = None,
    file_limit: int = 64 << 20,
) -> tools.Finished:
    env = {"TMPDIR": str(area)}
    started = time.monotonic()
    try:
        done = tools.run(
            argv, area=area, deadline=deadline, watch=watch, file_limit=file_limit, env=env
        )
    except tools.ToolMissing as error:
        raise PullFailed(f"{name}: {error}") from None
    except tools.ToolTimeout:
        waited = time.monotonic() - started
        raise PullTimeout(f"{name}: its registry took longer than {waited:.0f} s") from None
    if done.returncode == 0:
        return done
    if done.file_too_large:
        raise ImageTooLarge(f"{name}: a layer is larger than {file_limit} bytes")
    if NOT_FOUND.search(done.stderr):
        raise ImageNotFound(
            f"{name}: its registry has no such image, or access is denied ({said(done)})"
        )
    raise PullFailed(f"{name}: {said(done)}")


def said(done: tools.Finished) -> str:
    """skopeo's last lines, taken out of its log format."""
    text = re.sub(r'time="[^"]*" level=\w+ msg=', "", done.last_lines)
    return text.replace('\\"', '"').strip().strip('"')
