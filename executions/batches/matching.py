"""Regular expressions of clients, tried in a process of their own: one that runs wild is killed."""

import json
import selectors
import subprocess
import sys

SECONDS = 1.0
"""For one expression on one output."""
MOST_OVERDUE = 3
"""Of one call; then no other expression is tried, so that a batch can't keep a CPU busy."""
MEMORY_BYTES = 512 << 20

_MATCHER = f"""
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
for line in sys.stdin:
    pattern, text = json.loads(line)
    try:
        found = re.fullmatch(pattern, text) is not None
    except (re.error, MemoryError, RecursionError, OverflowError):
        found = None
    print(json.dumps(found), flush=True)
"""


class Matcher:
    """One process for many expressions; another when it had to be killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._overdue = 0

    def matches(self, pattern: str, text: str) -> bool | None:
        """None when it took too long, or failed."""
        if self._overdue >= MOST_OVERDUE:
            return None
        process = self._process = self._process or _start()
        assert process.stdin is not None  # noqa: S101 (they are pipes)
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(json.dumps([pattern, text]) + "\n")
            process.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                answered = selector.select(SECONDS)
            line = process.stdout.readline() if answered else ""
        except BrokenPipeError:
            line = ""
        if not line:
            self._overdue += 1
            self.close()
            return None
        found: bool | None = json.loads(line)
        return found

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _MATCHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        text=True,
        encoding="utf-8",
    )
