"""Which paths a request may name as its input files."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NoReturn

from executions.errors import InputRefused, InvalidRequest
from filestore.errors import BadPath
from filestore.paths import clean_path

RESERVED = frozenset({"proc", "dev", "sys", "output"})
"""First components that are mounts of the sandbox itself."""


def clean_files(paths: Sequence[str]) -> tuple[str, ...]:
    """Clean relative paths that can all appear in one sandbox.

    Raises InvalidRequest for what isn't a path, InputRefused for one that is reserved, given twice,
    or a directory of another.
    """
    cleaned = tuple(_clean(index, path) for index, path in enumerate(paths))
    for earlier, later in pairwise(sorted(path.split("/") for path in cleaned)):
        # A path sorts right before what lies below it.
        if earlier == later[: len(earlier)]:
            _collision("/".join(earlier), "/".join(later))
    return cleaned


def _clean(index: int, raw: str) -> str:
    name = f"files.{index}"
    try:
        path = clean_path(raw)
    except BadPath as error:
        why = error.message.removeprefix("path: ")
        raise InvalidRequest(f"{name}: {why}", code=error.code, fields={name: [why]}) from None
    first = path.split("/", 1)[0]
    if first in RESERVED:
        raise _refused(name, f"/{first} belongs to the sandbox; a file can't be put there")
    return path


def _collision(earlier: str, later: str) -> NoReturn:
    if earlier == later:
        raise _refused("files", f"{later} is there twice")
    raise _refused("files", f"{earlier} can't be a file: {later} lies below it")


def _refused(name: str, why: str) -> InputRefused:
    return InputRefused(f"{name}: {why}", fields={name: [why]})
