"""What django-q2 calls."""

from executions import runner
from executions.callbacks import delivering


def deliver(delivery_id: str) -> None:
    """Try a delivery, and others; harmless when it isn't due, or somebody else tries it."""
    delivering.drain(delivery_id, interrupt=runner.current().interrupted.fileno())
