"""What else can be wrong with a request about images."""

from executions.errors import BoxerError


class PrefetchEnded(BoxerError):
    """It can't be cancelled any more."""

    code = "prefetch_ended"
