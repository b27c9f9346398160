"""A run that is watched from the command line, while what tells of it is killed."""

import subprocess
from pathlib import Path

import pytest

from tests.client import BOXER, environment
from tests.registry import Registry
from tests.stack import Stack

COUNT = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo $i; sleep 0.1; done; exit 3"


@pytest.mark.slow
def test_the_output_is_whole_whatever_is_killed_on_the_way(
    registry: Registry, busybox_reference: str, tmp_path: Path
) -> None:
    with Stack("--workers", "2") as stack:
        for part in ("web", "postgres"):
            process = subprocess.Popen(
                [*BOXER, "run", busybox_reference, "--", "/bin/sh", "-c", COUNT],
                env=environment(stack.base_url, tmp_path),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert process.stdout is not None
            begun = [process.stdout.readline() for _ in range(5)]
            stack.part(part).kill()
            rest, told = process.communicate(timeout=90)
            assert (process.returncode, told) == (3, b""), part
            assert b"".join([*begun, rest]).split() == [b"%d" % n for n in range(1, 41)], part
            stack.wait_until_ready(60)
