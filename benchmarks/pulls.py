"""The first run of an image that isn't here yet, beside the two tools that it can't do without."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, ratio
from benchmarks.plan import Plan
from benchmarks.registry import Registry, run_tool
from benchmarks.stage import COMMAND, PRINTED, Stage


def measure_pulls(stage: Stage, plan: Plan, registry: Registry) -> Iterator[Figure]:
    """By the service without a pool, which would boot more sandboxes of the image meanwhile."""
    tags = [f"round-{number}" for number in range(plan.pulls)]
    registry.start()
    registry.serve(stage.archive, tags)
    tools: list[float] = []
    first: list[float] = []
    with stage.cold.client() as client:
        for tag in tags:
            reference = registry.reference(tag)
            stage.settle()
            tools.append(_by_hand(reference) * 1000)
            stage.settle()
            answer = client.run(PRINTED, image=reference, cmd=COMMAND)
            first.append(answer.latency)
    yield Figure("pull.tools", "skopeo copy + umoci raw unpack", "ms", tuple(tools))
    share, name = ratio(first, tools), "first run of an image that isn't here"
    yield Figure("pull.first", name, "ms", tuple(first), share, "the tools")


def _by_hand(reference: str) -> float:
    area = Path(tempfile.mkdtemp(prefix="boxer-bench-pull-"))
    layout, rootfs = area / "layout", area / "rootfs"
    copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]
    try:
        took = run_tool([*copy, f"docker://{reference}", f"oci:{layout}:image"])
        return took + run_tool(["umoci", "raw", "unpack", f"--image={layout}:image", str(rootfs)])
    finally:
        shutil.rmtree(area, ignore_errors=True)
