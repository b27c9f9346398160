"""What goes wrong with a sandbox's network."""

from executions.sandbox.spec import SandboxError


class NetworkError(SandboxError):
    """A sandbox can't be given a network; the message names what failed."""
