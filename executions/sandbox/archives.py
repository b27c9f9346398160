"""Archives of images: which kind one is, told by what is in it."""

import tarfile
from pathlib import Path

from executions.sandbox.image_errors import PullFailed

MEMBERS_LIMIT = 10_000


def origin(path: Path, area: Path) -> str:
    """skopeo's name for the image in `path`, reached through a link in `area`, where it runs: a
    colon in the path would be taken for something else. Raises PullFailed."""
    path = path.absolute()
    kind = _kind(path)
    (area / "source").symlink_to(path)
    return f"{kind}:source"


def _kind(path: Path) -> str:
    try:
        if path.is_dir():
            if (path / "oci-layout").is_file():
                return "oci"
            raise PullFailed(f"{path}: not an OCI layout: it has no file oci-layout")
        with tarfile.open(path) as archive:
            names = set()
            for count, member in enumerate(archive):
                if count >= MEMBERS_LIMIT:
                    break
                names.add(member.name.removeprefix("./"))
    except FileNotFoundError:
        raise PullFailed(f"{path}: no such file") from None
    except (OSError, tarfile.TarError, EOFError) as error:
        raise PullFailed(f"{path}: not an archive of an image: {error}") from None
    # What docker saves since version 25 is both; its manifest.json names the one image.
    if "manifest.json" in names:
        return "docker-archive"
    if "oci-layout" in names:
        return "oci-archive"
    raise PullFailed(f"{path}: neither an OCI archive nor a docker archive")
