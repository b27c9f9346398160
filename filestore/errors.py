"""Domain errors of the file store; each class carries a code; boxer_site/errors.py knows HTTP."""

from collections.abc import Sequence


class FilestoreError(Exception):
    """Anything the file store says no to. `code` is stable; the message is for people."""

    code = "filestore_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadPath(FilestoreError):
    """A path that can't be made a safe relative one."""

    code = "invalid_path"


class TooLarge(FilestoreError):
    """More bytes in one file than BOXER_UPLOAD_LIMIT_BYTES."""

    code = "too_large"


class FileMissing(FilestoreError):
    """`paths` that their owner has no file at, in the order they were asked for."""

    code = "not_found"

    def __init__(self, *, paths: Sequence[str]) -> None:
        super().__init__(f"no such file: {', '.join(paths)}")
        self.paths = tuple(paths)


class StorageQuotaExceeded(FilestoreError):
    """More bytes or files than the owner's quota has room for; the message names which."""

    code = "storage_quota"


class BlobGone(FilestoreError):
    """Contents that were removed, since nothing referred to them, before they could be used."""

    code = "contents_gone"


class StorageFailed(FilestoreError):
    """The storage didn't take or give contents. Nothing is stored; trying again may help."""

    code = "storage_failed"
