"""Runs last: of all that the tests have run, nothing is left on the machine."""

import subprocess
import sys
from pathlib import Path

from tests.environment import homes
from tests.leftovers import leftovers, traces_of_runs
from tests.stack import Stack


def test_no_run_has_left_a_mount_a_cgroup_or_a_network_namespace() -> None:
    """Services that the session still runs may keep their (empty) groups."""
    serving = {stack.home for stack in Stack.all if stack.running}
    assert traces_of_runs(home for home in homes() if home not in serving) == []
    for home in serving:
        # Those of sandboxes booted ahead are no run's.
        found = [line for line in traces_of_runs([home]) if "/warm-" not in line]
        assert [line for line in found if "mount" in line] == []
        assert list((home / "workers").glob("*/boxer-*")) == []


def test_the_check_itself_sees_a_process_that_stayed(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(30)", str(tmp_path)]
    with subprocess.Popen(sleeper) as process:
        try:
            assert any(f"process {process.pid}:" in line for line in leftovers([tmp_path]))
        finally:
            process.kill()
