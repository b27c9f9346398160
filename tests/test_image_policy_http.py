"""Rules for images and pinned tags, as a client of a whole service meets them."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.registry import Registry
from tests.stack import Stack
from tests.stack_access import execution, marked_image, query, until


@pytest.fixture
def write(stack: Stack) -> Iterator[Callable[..., None]]:
    """Rows of rules and pins, which an operator would make in the admin; gone after the test."""

    def write(sql: str, *parameters: object) -> None:
        query(stack, f"{sql} RETURNING 1", *parameters)

    yield write
    query(
        stack,
        "WITH rules AS (DELETE FROM image_policy_rule), pins AS (DELETE FROM image_policy_pin)"
        " SELECT 1",
    )
    until(lambda: stack.run(image="busybox:latest", cmd=["true"])[0] == 200, "rules are forgotten")


RULE = """
    INSERT INTO image_policy_rule (name, priority, pattern, action, max_bytes, platform, created_at)
    VALUES (%s, %s, %s, %s, %s, '', now())
"""


def test_a_refused_image_is_answered_with_403_and_the_rules_name(
    stack: Stack, busybox_reference: str, write: Callable[..., None]
) -> None:
    write(RULE, "no busybox", 0, "docker.io/library/busybox:*", "refuse", None)

    def refused() -> dict[str, Any] | None:
        status, answer = stack.run(image=busybox_reference, cmd=["true"])
        return answer if status == 403 else None

    answer = until(refused, "the rule is heard of")
    assert answer["code"] == "image_refused"
    assert "'no busybox'" in answer["error"]


def test_a_rules_size_is_looked_at_by_the_worker(
    stack: Stack, busybox_reference: str, write: Callable[..., None]
) -> None:
    write(RULE, "tiny ones", 0, "docker.io/library/*", "allow", 1000)

    def refused() -> dict[str, Any] | None:
        status, answer = stack.run(image=busybox_reference, cmd=["true"])
        return answer if status == 403 else None

    answer = until(refused, "the rule is heard of")
    assert answer["code"] == "image_refused"
    assert "'tiny ones'" in answer["error"]
    assert execution(stack, answer["exec_id"])["error_code"] == "image_refused"


def test_a_pinned_tag_runs_what_it_was_pinned_to(
    stack: Stack, registry: Registry, tmp_path: Path, write: Callable[..., None]
) -> None:
    name = f"pinned-{uuid.uuid4().hex[:8]}"
    first = registry.push(marked_image(tmp_path / "first", "first"), f"library/{name}:1")
    registry.push(marked_image(tmp_path / "second", "second"), f"library/{name}:1")
    write(
        "INSERT INTO image_policy_pin (reference, digest) VALUES (%s, %s)",
        f"docker.io/library/{name}:1",
        first,
    )

    def ran() -> dict[str, Any] | None:
        status, answer = stack.run(image=f"{name}:1", cmd=["cat", "/mark"])
        assert status == 200
        return answer if answer["stdout"] == "first" else None

    answer = until(ran, "the pin is heard of")
    assert answer["image_digest"] == first
    [row] = until(
        lambda: query(stack, "SELECT * FROM image_policy_cachedimage WHERE digest = %s", first),
        "the image is listed",
    )
    assert (row["pulled_by"], row["state"]) == ("anonymous", "here")
