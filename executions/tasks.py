"""What django-q2 calls."""

from executions import runner


def run_execution(exec_id: str) -> None:
    """Run a queued execution; harmless when it runs or has ended already."""
    runner.current().run(exec_id)
