"""What an entry can say that somebody did."""

from enum import StrEnum


class Verb(StrEnum):
    """At most 32 characters each."""

    LOGGED_IN = "login"
    LOGIN_FAILED = "login_failed"
    LOGGED_OUT = "logout"
    TOKEN_FAILED = "token_failed"  # noqa: S105 (a verb)
    TOKEN_CREATED = "token_created"  # noqa: S105
    TOKEN_CHANGED = "token_changed"  # noqa: S105
    TOKEN_REVOKED = "token_revoked"  # noqa: S105

    RUN_SUBMITTED = "run_submitted"
    RUN_VIEWED = "run_viewed"
    """By somebody who isn't its owner; nobody keeps a record of people reading their own."""
    RUNS_LISTED = "runs_listed"
    """The same of a list in which others' stand."""
    RUN_CANCELLED = "run_cancelled"
    RUN_REPEATED = "run_repeated"
    RUN_DELETED = "run_deleted"
    RUN_REVIEWED = "run_reviewed"
    BATCH_CANCELLED = "batch_cancelled"
    BATCH_VIEWED = "batch_viewed"
    BATCHES_LISTED = "batches_listed"

    CALLBACK_SECRET_ROTATED = "callback_secret_rotated"  # noqa: S105

    HOST_DRAINED = "host_drained"
    HOST_RESUMED = "host_resumed"

    FILE_DOWNLOADED = "file_downloaded"
    FILE_DELETED = "file_deleted"

    USER_CREATED = "user_created"
    USER_CHANGED = "user_changed"
    USER_DELETED = "user_deleted"
    GROUP_CREATED = "group_created"
    GROUP_CHANGED = "group_changed"
    GROUP_DELETED = "group_deleted"
    QUOTA_CREATED = "quota_created"
    QUOTA_CHANGED = "quota_changed"
    QUOTA_DELETED = "quota_deleted"

    IMAGE_RULE_CREATED = "image_rule_created"
    IMAGE_RULE_CHANGED = "image_rule_changed"
    IMAGE_RULE_DELETED = "image_rule_deleted"
    IMAGE_PIN_CREATED = "image_pin_created"
    IMAGE_PIN_CHANGED = "image_pin_changed"
    IMAGE_PIN_DELETED = "image_pin_deleted"
    IMAGE_PULLED = "image_pulled"
    IMAGE_PREFETCHED = "image_prefetched"
    IMAGE_PREFETCH_CANCELLED = "image_prefetch_cancelled"
    IMAGE_IMPORTED = "image_imported"
    IMAGE_REMOVED = "image_removed"
