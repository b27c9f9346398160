"""Domain errors; each class carries a code. What HTTP makes of them is boxer_site/errors.py."""

from collections.abc import Mapping


class BoxerError(Exception):
    """Anything that Boxer itself says no to. `code` is stable; the message is for people.

    `details` is what else an answer may tell, for example what a stopped program had printed.
    """

    code = "error"

    def __init__(
        self,
        message: str,
        *,
        exec_id: str = "",
        code: str = "",
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exec_id = exec_id
        self.code = code or self.code
        self.details = dict(details or {})


class InvalidRequest(BoxerError):
    """The request can't be run as it stands. `fields` names what is wrong where it is known."""

    code = "invalid"

    def __init__(
        self,
        message: str,
        *,
        exec_id: str = "",
        code: str = "",
        fields: dict[str, list[str]] | None = None,
    ) -> None:
        super().__init__(message, exec_id=exec_id, code=code)
        self.fields = fields or {}


class InvalidReference(InvalidRequest):
    """Not the name of an image that a registry could serve."""

    code = "invalid_image"


class InputNotFound(InvalidRequest):
    """A path in `files` that its owner has no file at."""

    code = "file_not_found"


class InputRefused(InvalidRequest):
    """A path in `files` that is reserved, or collides with another."""

    code = "file_refused"


class NetworkUnavailable(InvalidRequest):
    """A network mode that this installation doesn't offer."""

    code = "network_unavailable"


class ImageRefused(BoxerError):
    """A rule or a pin says no to the image; the message names it."""

    code = "image_refused"


class NoExecution(BoxerError):
    """There is no such execution, or it is somebody else's."""

    code = "not_found"


class Conflict(BoxerError):
    """Not possible as the execution stands."""

    code = "conflict"


class HasEnded(Conflict):
    """What has ended can't be cancelled."""

    code = "has_ended"


class NotEnded(Conflict):
    """What hasn't ended can't be deleted."""

    code = "not_ended"


class InputsGone(Conflict):
    """What the run was given wasn't kept, so it can't be repeated."""

    code = "inputs_gone"


class IdempotencyMismatch(BoxerError):
    """The Idempotency-Key was used for another request within the last 24 hours."""

    code = "idempotency_mismatch"


class IdempotencyGone(Conflict):
    """What the first request with the Idempotency-Key has made was removed since."""

    code = "idempotency_gone"


class QuotaForbids(BoxerError):
    """A network or an image that the user's quota doesn't allow."""

    code = "quota_forbids"


class HostNetworkForbidden(BoxerError):
    """The host's network without the permission for it."""

    code = "host_network_forbidden"


class ServiceBusy(BoxerError):
    """Nothing was accepted, or no answer came in time; try again after `retry_after` seconds."""

    code = "busy"

    def __init__(
        self, message: str, *, retry_after: int = 5, exec_id: str = "", code: str = ""
    ) -> None:
        super().__init__(message, exec_id=exec_id, code=code)
        self.retry_after = retry_after


class QueueFull(ServiceBusy):
    code = "queue_full"


class TooManyFailures(ServiceBusy):
    """So many logins or tokens failed lately that this one isn't looked at."""

    code = "too_many_failures"

    def __init__(self, *, retry_after: int) -> None:
        message = f"too many failed attempts; try again in {retry_after} s"
        super().__init__(message, retry_after=retry_after)


class NoWorker(ServiceBusy):
    code = "no_worker"


class StillQueued(ServiceBusy):
    """The wait for a worker was longer than BOXER_QUEUE_WAIT_SECS; the execution was withdrawn."""

    code = "queue_timeout"


class RunCancelled(ServiceBusy):
    """Somebody cancelled the run while its answer was waited for."""

    code = "cancelled"


class QuotaExceeded(ServiceBusy):
    """A rate or a count is used up; `details` says which."""

    code = "quota_exceeded"

    def __init__(self, message: str, *, retry_after: int, details: Mapping[str, object]) -> None:
        super().__init__(message, retry_after=retry_after)
        self.details = dict(details)


class WallClockExceeded(BoxerError):
    code = "timed_out"


class OutputLimitExceeded(BoxerError):
    code = "output_limit"


class InfraError(BoxerError):
    """The run failed, and not for anything the program did."""

    code = "infra_error"
