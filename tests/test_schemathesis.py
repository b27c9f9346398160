"""What /openapi.json promises, a generator of requests can't catch a running Boxer breaking."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from executions.sandbox.references import BadReference, normalise
from tests.stack import Stack

EXAMPLES = 15
LIMITS = {"wall_clock_secs": 5, "memory_mb": 64}

# A path, or an image that no registry has, is well-formed and refused all the same.
REFUSES_GOOD_DATA = [schemathesis.checks.positive_data_acceptance]

Case = Any  # schemathesis has no types for what its strategies make


@pytest.fixture(scope="module")
def api(stack: Stack) -> Any:
    schema = schemathesis.openapi.from_url(f"{stack.base_url}/openapi.json")
    schema.config.update(base_url=stack.base_url)
    return schema


def hold(
    api: Any,
    method: str,
    path: str,
    mode: GenerationMode,
    change: Callable[[Case], None] = lambda _case: None,
) -> Counter[int]:
    """Send generated requests and check every answer; how often each status came."""
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    def check(case: Case) -> None:
        change(case)
        response = case.call_and_validate(excluded_checks=REFUSES_GOOD_DATA)
        statuses[response.status_code] += 1

    check()
    return statuses


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_system_routes_keep_their_promises(api: Any, path: str) -> None:
    assert set(hold(api, "GET", path, GenerationMode.POSITIVE)) == {200}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_file_routes_keep_their_promises(api: Any, method: str, mode: GenerationMode) -> None:
    assert hold(api, method, "/files", mode)


def test_bad_runs_are_refused_as_promised(api: Any, busybox_reference: str) -> None:
    def loopback(case: Case) -> None:
        """Where something else is wrong, no registry of the world is asked for the image."""
        if isinstance(case.body, dict) and is_reference(case.body.get("image")):
            case.body["image"] = busybox_reference

    assert hold(api, "POST", "/run", GenerationMode.NEGATIVE, loopback)


def is_reference(image: object) -> bool:
    try:
        return isinstance(image, str) and bool(normalise(image))
    except BadReference:
        return False


def test_good_runs_are_answered_as_promised(api: Any, busybox_reference: str) -> None:
    def runnable(case: Case) -> None:
        """Any command with any environment, in an image that is there, briefly."""
        case.body["image"] = busybox_reference
        case.body["limits"] = LIMITS
        case.body.pop("files", None)
        if case.body.get("network") == "sandbox":
            case.body["network"] = None

    statuses = hold(api, "POST", "/run", GenerationMode.POSITIVE, runnable)
    assert statuses[200]
    # 422: a key that came with another body before.
    assert set(statuses) <= {200, 400, 422}


ONE = "/api/v1/executions/{exec_id}/"
BATCHES = "/api/v1/batches/"
BATCH = "/api/v1/batches/{batch_id}/"


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/executions/"),
        ("GET", ONE),
        ("DELETE", ONE),
        ("POST", f"{ONE}cancel/"),
        ("POST", f"{ONE}rerun/"),
        ("GET", f"{ONE}stdout/"),
        ("GET", f"{ONE}events/"),
        ("GET", f"{ONE}files/"),
        ("GET", f"{ONE}files/{{path}}"),
        ("GET", f"{ONE}files.zip"),
        ("GET", BATCHES),
        ("GET", BATCH),
        ("POST", f"{BATCH}cancel/"),
        ("GET", f"{BATCH}results/"),
    ],
)
def test_routes_of_executions_keep_their_promises(
    api: Any, method: str, path: str, mode: GenerationMode
) -> None:
    def short(case: Case) -> None:
        """No execution is there by such a name, or nobody waits long for one that is."""
        if isinstance(case.query, dict) and str(case.query.get("wait", "")).isdigit():
            case.query["wait"] = min(1, int(case.query["wait"]))

    try:
        assert hold(api, method, path, mode, short)
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "nothing can be wrong with such a request"


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_submissions_keep_their_promises(
    api: Any, busybox_reference: str, mode: GenerationMode
) -> None:
    def harmless(case: Case) -> None:
        if isinstance(case.body, dict) and is_reference(case.body.get("image")):
            case.body["image"] = busybox_reference
        if isinstance(case.body, dict) and mode is GenerationMode.POSITIVE:
            case.body["limits"] = LIMITS
            case.body.pop("files", None)
            case.body["network"] = None

    statuses = hold(api, "POST", "/api/v1/executions/", mode, harmless)
    # 422: a key that came with another body before.
    assert set(statuses) <= (
        {202, 400, 422} if mode is GenerationMode.POSITIVE else set(range(600))
    )


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_batches_keep_their_promises(
    api: Any, busybox_reference: str, mode: GenerationMode
) -> None:
    def harmless(case: Case) -> None:
        if not isinstance(case.body, dict):
            return
        runs = case.body.get("runs")
        for part in [case.body.get("template"), case.body.get("entrypoint"), *_listed(runs)]:
            if isinstance(part, dict) and is_reference(part.get("image")):
                part["image"] = busybox_reference
            if isinstance(part, dict) and mode is GenerationMode.POSITIVE:
                for name in ("files", "network", "limits"):
                    part.pop(name, None)
        if mode is GenerationMode.POSITIVE:
            template = {"image": busybox_reference, "cmd": ["true"], "limits": LIMITS}
            case.body["template"] = template

    statuses = hold(api, "POST", BATCHES, mode, harmless)
    assert set(statuses) <= (
        {202, 400, 422} if mode is GenerationMode.POSITIVE else set(range(600))
    )


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
