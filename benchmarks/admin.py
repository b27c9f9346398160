"""Pages of the admin by a table of a million executions, in a PostgreSQL that is thrown away."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Bar, Figure, Judged
from benchmarks.plan import Plan
from benchmarks.service import OURS, NotReady
from boxer_site.embedded_postgres import EmbeddedPostgres

ROOT = Path(__file__).resolve().parent.parent
BAR = Bar(150, Judged.P95)
"""Milliseconds, of each page."""


def measure_admin(plan: Plan) -> Iterator[Figure]:
    """Raises NotReady when a page doesn't answer."""
    home = Path(tempfile.mkdtemp(prefix="boxer-bench-"))
    home.chmod(0o711)  # PostgreSQL's own user goes through it
    try:
        with EmbeddedPostgres(home, throwaway=True).running():
            found = _pages(home, plan)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    for name, samples in found.items():
        key = "admin." + name.strip().replace(" ", "_")
        yield Figure(key, f"admin: {name}", "ms", tuple(samples), bar=BAR)


def _pages(home: Path, plan: Plan) -> dict[str, list[float]]:
    env = {name: value for name, value in os.environ.items() if name not in OURS}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.admin_pages", str(plan.executions), str(plan.requests)],
        cwd=ROOT,
        env={**env, "BOXER_HOME": str(home), "BOXER_LOG_LEVEL": "WARNING"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise NotReady(f"the pages of the admin: {done.stderr.strip()[-2000:]}")
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found
