"""Whether there is room for a file of a user: what filestore asks before it lets a path mean it."""

from executions.quotas import usage
from executions.quotas.terms import terms_of
from filestore.errors import StorageQuotaExceeded


def admit(owner_id: int, size: int, replaced_size: int | None) -> None:
    """In the transaction that stores it, and alone in it until that ends.

    `replaced_size` is that of the file whose place it takes. Raises StorageQuotaExceeded.
    """
    terms = terms_of(owner_id)
    if terms is None or (terms.stored_bytes is None and terms.stored_files is None):
        return
    usage.lock(owner_id)
    stored_bytes, files = usage.stored(owner_id)
    more = size - (replaced_size or 0)
    if terms.stored_bytes is not None and more > 0 and stored_bytes + more > terms.stored_bytes:
        raise StorageQuotaExceeded(
            f"your quota stored_bytes is used up: {stored_bytes} of {terms.stored_bytes} bytes, "
            f"and this needs {more} more"
        )
    if terms.stored_files is not None and replaced_size is None and files >= terms.stored_files:
        raise StorageQuotaExceeded(
            f"your quota stored_files is used up: {files} of {terms.stored_files} files"
        )
