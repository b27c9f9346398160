"""The base of admin pages that only show."""

from filestore.admin_base import BoundedPaginator, ReadOnlyAdmin

__all__ = ["BoundedPaginator", "ReadOnlyAdmin"]
