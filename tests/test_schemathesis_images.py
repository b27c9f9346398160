"""What /openapi.json promises of images and rules, held against a running Boxer."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from schemathesis.generation import GenerationMode

from tests.stack import Stack
from tests.stack_access import query
from tests.test_prefetch import api as operator
from tests.test_schemathesis import api, hold, is_reference

__all__ = ["api", "operator"]

IMAGES = "/api/v1/images/"
PREFETCHES = "/api/v1/images/prefetch/"
PREFETCH = "/api/v1/images/prefetch/{prefetch_id}/"
RULES = "/api/v1/image-rules/"
RULE = "/api/v1/image-rules/{rule_id}/"


@pytest.fixture(autouse=True)
def no_rules_stay(stack: Stack) -> Iterator[None]:
    yield
    query(stack, "WITH gone AS (DELETE FROM image_policy_rule) SELECT 1")


@pytest.mark.parametrize("path", [IMAGES, PREFETCHES, RULES])
def test_lists_keep_their_promises(api: Any, operator: httpx.Client, path: str) -> None:
    assert hold(api, "GET", path, GenerationMode.POSITIVE)[200]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", PREFETCH), ("DELETE", PREFETCH), ("DELETE", RULE)]
)
def test_what_is_not_there_is_answered_as_promised(
    api: Any, operator: httpx.Client, method: str, path: str
) -> None:
    assert set(hold(api, method, path, GenerationMode.POSITIVE)) == {404}


@pytest.mark.parametrize("path", [PREFETCHES, RULES])
def test_bad_requests_are_refused_as_promised(api: Any, operator: httpx.Client, path: str) -> None:
    def local(case: Any) -> None:
        """No registry of the world is asked, and no rule is made that other tests would meet."""
        if not isinstance(case.body, dict):
            return
        if is_reference(case.body.get("image")):
            case.body["image"] = "boxer.local/absent"
        pattern = case.body.get("pattern")
        if isinstance(pattern, str) and "\0" not in pattern:
            case.body["pattern"] = "boxer.local/absent"

    assert hold(api, "POST", path, GenerationMode.NEGATIVE, local)


def test_good_requests_are_answered_as_promised(
    api: Any, operator: httpx.Client, busybox_reference: str
) -> None:
    def pullable(case: Any) -> None:
        case.body["image"] = busybox_reference

    assert set(hold(api, "POST", PREFETCHES, GenerationMode.POSITIVE, pullable)) <= {202, 422, 503}

    def harmless(case: Any) -> None:
        case.body["pattern"] = "boxer.local/absent"

    assert set(hold(api, "POST", RULES, GenerationMode.POSITIVE, harmless)) <= {201, 400, 422}
