"""What ends a command: one line for people, and an exit code."""

FAILED = 125
"""Of Boxer or of this client, never of the program: as `docker run` has it."""
TIMED_OUT = 124
"""As timeout(1) has it."""
OUTPUT_LIMIT = 123
CANCELLED = 122


class ClientError(Exception):
    """`message` is one line and names the thing."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
