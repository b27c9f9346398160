"""What can be wrong with the address of a callback."""

from executions.errors import InvalidRequest


class BadCallbackUrl(InvalidRequest):
    """Not an address that a callback is ever sent to, whatever its name means."""

    code = "invalid_callback_url"
