"""What django-q2 calls."""

from executions import runner


def run_execution(exec_id: str) -> None:
    """Run a queued execution; harmless when it runs or has ended already."""
    runner.current().run(exec_id)


def prefetch_image(prefetch_id: str) -> None:
    """Bring in an image that somebody asked for; harmless when that is under way or has ended."""
    runner.current().prefetch(prefetch_id)
