"""Images brought in ahead by a worker of a whole service, and rules made by the API."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.lying_registry import LyingRegistry
from tests.made_images import Entry, oci_image
from tests.registry import Registry
from tests.stack import Stack
from tests.stack_access import query, second_registry, until

OPERATOR = ("view_rule", "add_rule", "delete_rule", "view_cachedimage", "view_prefetch",
            "add_prefetch", "cancel_prefetch")  # fmt: skip


@pytest.fixture
def api(stack: Stack) -> Iterator[httpx.Client]:
    """A client whose user is an operator for the length of the test."""
    query(
        stack,
        """
        INSERT INTO auth_user_user_permissions (user_id, permission_id)
        SELECT u.id, p.id FROM auth_user u, auth_permission p
        JOIN django_content_type t ON t.id = p.content_type_id
        WHERE u.username = 'anonymous' AND t.app_label = 'image_policy' AND codename = ANY(%s)
        RETURNING 1
        """,
        list(OPERATOR),
    )
    with httpx.Client(base_url=stack.base_url, timeout=30) as client:
        yield client
    query(
        stack,
        """
        DELETE FROM auth_user_user_permissions USING auth_user u
        WHERE user_id = u.id AND u.username = 'anonymous' RETURNING 1
        """,
    )


def ended(api: httpx.Client, address: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        told: dict[str, Any] = api.get(address).json()
        return told if told["state"] in {"done", "failed", "cancelled"} else None

    found: dict[str, Any] = until(look, "the prefetch ends", timeout=60)
    return found


def prefetch(api: httpx.Client, image: str) -> str:
    answer = api.post("/api/v1/images/prefetch/", json={"image": image})
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert answer.headers["Location"] == f"/api/v1/images/prefetch/{told['id']}/"
    assert (told["image"], told["requested_by"]) == (image, "anonymous")
    return answer.headers["Location"]


def new_name(word: str) -> str:
    return f"{word}-{uuid.uuid4().hex[:8]}"


def layers(path: Path, *sizes: int) -> Path:
    """An image that no other test has."""
    mark = uuid.uuid4().bytes
    return oci_image(path, [[Entry(f"f{n}", mark + bytes(size))] for n, size in enumerate(sizes)])


def audited(stack: Stack, object_id: str) -> list[str]:
    rows = query(stack, "SELECT verb FROM audit_entry WHERE object_id = %s ORDER BY id", object_id)
    return [row["verb"] for row in rows]


def test_an_image_is_brought_in_ahead_and_listed(
    stack: Stack, api: httpx.Client, registry: Registry, tmp_path: Path
) -> None:
    name = new_name("ahead")
    digest = registry.push(layers(tmp_path / "image", 1000, 2000, 3000), f"library/{name}:1")
    address = prefetch(api, f"{name}:1")
    told = ended(api, address)
    assert (told["state"], told["digest"], told["error"]) == ("done", digest, "")
    assert told["layers_done"] == told["layers_total"] == 3
    assert told["bytes_done"] == told["bytes_total"] > 0
    assert told["requested_at"] <= told["started_at"] <= told["finished_at"]
    reference = f"docker.io/library/{name}:1"

    def listed() -> dict[str, Any] | None:
        images = api.get("/api/v1/images/").json()["images"]
        return next((image for image in images if reference in image["references"]), None)

    image = until(listed, "the image is listed with its reference")
    assert (image["digest"], image["state"], image["pulled_by"]) == (digest, "here", "anonymous")
    assert image["size"] >= 6000
    assert audited(stack, told["id"]) == ["image_prefetched"]
    assert told["id"] in [
        one["id"] for one in api.get("/api/v1/images/prefetch/").json()["prefetches"]
    ]
    again = api.delete(address)
    assert (again.status_code, again.json()["code"]) == (409, "prefetch_ended")


def test_one_that_fails_says_why(api: httpx.Client) -> None:
    told = ended(api, prefetch(api, f"{new_name('absent')}:1"))
    assert (told["state"], told["error_code"]) == ("failed", "image_not_found")
    assert "its registry has no such image" in told["error"]


def test_what_names_no_image_is_refused(api: httpx.Client) -> None:
    for image in ("dir:/etc", "", "a b", 5):
        answer = api.post("/api/v1/images/prefetch/", json={"image": image})
        assert answer.status_code == 400
    assert api.post("/api/v1/images/prefetch/", json={}).json()["fields"] == {
        "image": ["This field is required."]
    }


@pytest.fixture
def hanging(
    stack: Stack, registry: Registry, tmp_path: Path
) -> Iterator[tuple[LyingRegistry, str]]:
    """A registry that has begun to send an image and doesn't go on, and the image's name."""
    with second_registry(registry, tmp_path) as server:
        name = new_name("slow")
        server.serve(layers(tmp_path / "slow", 1000), name)
        server.hanging |= {path for path in server.answers if f"{name}/blobs/" in path}
        yield server, f"{server.address}/{name}:latest"
        server.release.set()


def under_way(stack: Stack, server: LyingRegistry, prefetch_id: str) -> dict[str, Any]:
    """Its row, once a worker is downloading it."""
    assert server.reached.wait(30)

    def look() -> dict[str, Any] | None:
        sql = "SELECT * FROM image_policy_prefetch WHERE id = %s"
        [row] = query(stack, sql, prefetch_id)
        return row if row["state"] == "downloading" else None

    found: dict[str, Any] = until(look, "it is downloaded")
    return found


def id_of(address: str) -> str:
    return address.rstrip("/").rsplit("/", 1)[1]


def test_a_cancelled_one_stops_and_its_worker_goes_on(
    stack: Stack,
    api: httpx.Client,
    hanging: tuple[LyingRegistry, str],
    busybox_reference: str,
) -> None:
    server, image = hanging
    address = prefetch(api, image)
    under_way(stack, server, id_of(address))
    assert api.delete(address).status_code == 204
    assert api.get(address).json()["state"] == "cancelled"
    assert audited(stack, id_of(address)) == ["image_prefetched", "image_prefetch_cancelled"]
    until(lambda: not skopeos(stack), "the download is ended")
    statuses = [stack.run(image=busybox_reference, cmd=["true"])[0] for _ in range(4)]
    assert statuses == [200] * 4
    assert api.get(address).json()["state"] == "cancelled"


def skopeos(stack: Stack) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(stack.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended between the two looks
            if child.name() == "skopeo":
                found.append(child)
    return found


def test_one_whose_worker_is_killed_is_marked_failed(
    stack: Stack, api: httpx.Client, hanging: tuple[LyingRegistry, str]
) -> None:
    server, image = hanging
    address = prefetch(api, image)
    row = under_way(stack, server, id_of(address))
    psutil.Process(int(row["worker"].split("-")[0])).kill()
    told = ended(api, address)
    assert (told["state"], told["error_code"]) == ("failed", "lost")
    server.release.set()
    assert ended(api, prefetch(api, image))["state"] == "done"


def test_one_whose_worker_is_to_end_goes_on_in_another(
    stack: Stack, api: httpx.Client, hanging: tuple[LyingRegistry, str]
) -> None:
    server, image = hanging
    address = prefetch(api, image)
    row = under_way(stack, server, id_of(address))
    psutil.Process(int(row["worker"].split("-")[0])).terminate()
    server.release.set()
    assert ended(api, address)["state"] == "done"
    [after] = query(stack, "SELECT * FROM image_policy_prefetch WHERE id = %s", id_of(address))
    assert after["worker"] != row["worker"]


def test_one_that_waits_is_cancelled_with_its_message(stack: Stack, api: httpx.Client) -> None:
    """Told from the row alone: with every worker busy it would wait."""
    made = prefetch(api, f"{new_name('absent')}:1")
    ended(api, made)
    rows = query(
        stack,
        "SELECT q.id FROM django_q_ormq q JOIN image_policy_prefetch p ON p.message_id = q.id"
        " WHERE p.id = %s",
        id_of(made),
    )
    assert rows == []


# ── Rules ────────────────────────────────────────────────────────────────────────────────────────


def test_rules_are_made_listed_and_deleted(
    stack: Stack, api: httpx.Client, busybox_reference: str
) -> None:
    name = new_name("rule")
    asked = {"name": name, "pattern": "*/nothing-like-it/*", "action": "refuse", "priority": 3}
    made = api.post("/api/v1/image-rules/", json=asked)
    assert made.status_code == 201, made.text
    rule = made.json()
    assert rule["user"] is None
    assert asked.items() <= rule.items()
    try:
        assert name in [one["name"] for one in api.get("/api/v1/image-rules/").json()["rules"]]
        doubled = api.post("/api/v1/image-rules/", json=asked)
        assert (doubled.status_code, list(doubled.json()["fields"])) == (400, ["name"])
        answer = until(lambda: refused(api), "the rule is heard of")
        assert answer["code"] == "image_refused"
        assert name in answer["error"]
        assert stack.run(image=busybox_reference, cmd=["true"])[0] == 200
    finally:
        assert api.delete(f"/api/v1/image-rules/{rule['id']}/").status_code == 204
    assert api.delete(f"/api/v1/image-rules/{rule['id']}/").status_code == 404
    verbs = [verb for verb in audited(stack, str(rule["id"])) if verb.startswith("image_rule_")]
    assert verbs == ["image_rule_created", "image_rule_deleted"]
    [entry] = query(
        stack,
        "SELECT * FROM audit_entry WHERE object_id = %s AND verb = 'image_rule_created'",
        str(rule["id"]),
    )
    assert (entry["username"], entry["address"]) == ("anonymous", "127.0.0.1")


def refused(api: httpx.Client) -> dict[str, Any] | None:
    answer = api.post("/api/v1/images/prefetch/", json={"image": "localhost/nothing-like-it/a"})
    return answer.json() if answer.status_code == 403 else None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"pattern": "python"}, "pattern"),
        ({"action": "maybe"}, "action"),
        ({"user": "nobody-of-that-name"}, "user"),
        ({"group": "nobody-of-that-name"}, "group"),
        ({"user": "anonymous", "group": "Operators"}, ""),
        ({"platform": "amd64"}, "platform"),
        ({"max_bytes": -1}, "max_bytes"),
        ({"priority": 10**9}, "priority"),
        ({"unknown": 1}, "unknown"),
        ({"name": None}, "name"),
    ],
)
def test_a_rule_that_can_not_be_is_refused_by_name(
    api: httpx.Client, change: dict[str, object], field: str
) -> None:
    asked = {"name": new_name("rule"), "pattern": "*", "action": "allow", **change}
    answer = api.post("/api/v1/image-rules/", json=asked)
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == "invalid"
    assert not field or field in answer.json()["fields"]


# ── Who may ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "images/"),
        ("GET", "images/prefetch/"),
        ("POST", "images/prefetch/"),
        ("GET", f"images/prefetch/{uuid.uuid4()}/"),
        ("DELETE", f"images/prefetch/{uuid.uuid4()}/"),
        ("GET", "image-rules/"),
        ("POST", "image-rules/"),
        ("DELETE", "image-rules/1/"),
    ],
)
def test_without_the_permission_everything_is_forbidden(
    stack: Stack, method: str, path: str
) -> None:
    url = f"{stack.base_url}/api/v1/{path}"
    answer = httpx.request(method, url, json={} if method == "POST" else None, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")


def test_what_is_not_there_is_404(api: httpx.Client) -> None:
    for method, path in (
        ("GET", f"images/prefetch/{uuid.uuid4()}/"),
        ("DELETE", f"images/prefetch/{uuid.uuid4()}/"),
        ("DELETE", "image-rules/999999999999/"),
        ("GET", "images/prefetch/1/"),
    ):
        assert api.request(method, f"/api/v1/{path}").status_code == 404


def test_operators_and_auditors_have_their_permissions(stack: Stack) -> None:
    rows = query(
        stack,
        """
        SELECT g.name, array_agg(codename ORDER BY codename) AS codenames FROM auth_group g
        JOIN auth_group_permissions gp ON gp.group_id = g.id
        JOIN auth_permission p ON p.id = gp.permission_id
        JOIN django_content_type t ON t.id = p.content_type_id
        WHERE t.app_label IN ('image_policy', 'audit') GROUP BY g.name
        """,
    )
    found = {row["name"]: set(row["codenames"]) for row in rows}
    assert set(OPERATOR) | {"view_entry"} <= found["Operators"]
    assert found["Auditors"] == {
        "view_rule", "view_pin", "view_cachedimage", "view_prefetch", "view_entry"
    }  # fmt: skip
