"""Images over HTTP: named in every way, pulled once, resolved again, and registries that fail."""

import secrets
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.registry import Registry
from tests.stack import Stack
from tests.stack_access import (
    execution,
    marked_image,
    newest_execution,
    second_registry,
    until,
)

TAG_TTL_SECS = 3.0
"""Of the stack that all tests share."""


@pytest.fixture(scope="module")
def digest(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    layout = marked_image(tmp_path_factory.mktemp("named") / "layout", "named")
    registry.push(layout, "team/tools/sub/shell:1.0_rc-1")
    registry.push(layout, "library/shell:latest")
    return registry.push(layout, "library/shell:2")


@pytest.mark.parametrize(
    "reference",
    [
        "shell",
        "shell:2",
        "library/shell",
        "docker.io/library/shell:latest",
        "index.docker.io/library/shell",
        "{digest}",
        "{address}/library/shell",
        "{address}/library/shell:2",
        "{address}/team/tools/sub/shell:1.0_rc-1",
        "{address}/team/tools/sub/shell:1.0_rc-1@{digest}",
    ],
)
def test_an_image_is_found_by_every_name_that_docker_takes(
    stack: Stack, registry: Registry, digest: str, reference: str
) -> None:
    name = "shell@{digest}" if reference == "{digest}" else reference
    image = name.format(address=registry.address, digest=digest)
    status, answer = stack.run(image=image, cmd=["cat", "/mark"])
    assert (status, answer["stdout"], answer["image_digest"]) == (200, "named", digest)


def test_python_runs_by_the_name_that_everybody_uses(stack: Stack, python_reference: str) -> None:
    assert python_reference == "python:3.12-slim"
    code = "import sys, ssl, json; print('hello from', sys.version_info[0])"
    status, answer = stack.run(image=python_reference, cmd=["python3", "-c", code])
    assert (status, answer["stdout"], answer["stderr"]) == (200, "hello from 3\n", "")


@pytest.mark.parametrize(
    "reference", ["no-such-image", "shell:no-such-tag", f"shell@sha256:{'0' * 64}"]
)
def test_an_image_that_no_registry_has_is_the_requests_fault(
    stack: Stack, digest: str, reference: str
) -> None:
    status, answer = stack.run(image=reference, cmd=["true"])
    assert (status, answer["code"]) == (400, "image_not_found")
    assert reference.partition(":")[0].partition("@")[0] in answer["error"]
    row = execution(stack, answer["exec_id"])
    assert (row["status"], row["outcome"], row["error_code"]) == (
        "finished",
        "infra_error",
        "image_not_found",
    )


@pytest.mark.parametrize(
    "reference",
    [
        "oci:/etc",
        "dir:/etc",
        "docker-daemon:busybox:latest",
        "docker://busybox",
        "containers-storage:busybox",
        "--help",
        "-v",
        "busy box",
        "busybox\n",
        " busybox",
        "Busybox",
        "busybox:latest;id",
        "$(id)",
        "../../etc",
        "busybox@sha256:abc",
    ],
)
def test_what_is_no_registrys_image_is_refused_before_anything_is_written_down(
    stack: Stack, reference: str
) -> None:
    before = newest_execution(stack)
    status, answer = stack.run(image=reference, cmd=["true"])
    assert (status, answer["code"]) == (400, "invalid_image")
    assert newest_execution(stack) == before


def test_a_registry_that_is_down_is_not_remembered(
    stack: Stack, registry: Registry, tmp_path: Path
) -> None:
    registry.push(marked_image(tmp_path / "layout", "after all"), "team/later:1")
    image = f"{registry.address}/team/later:1"
    registry.pause()
    try:
        status, answer = stack.run(image=image, cmd=["cat", "/mark"])
    finally:
        registry.resume()
    assert (status, answer["code"]) == (500, "pull_failed")
    assert image in answer["error"]
    assert execution(stack, answer["exec_id"])["outcome"] == "infra_error"
    status, answer = stack.run(image=image, cmd=["cat", "/mark"])
    assert (status, answer["stdout"]) == (200, "after all")


def test_an_image_that_is_here_runs_while_its_registry_is_down(
    stack: Stack, registry: Registry, tmp_path: Path
) -> None:
    registry.push(marked_image(tmp_path / "layout", "still here"), "team/here:1")
    image = f"{registry.address}/team/here:1"
    assert stack.run(image=image, cmd=["true"])[0] == 200
    registry.pause()
    try:
        time.sleep(TAG_TTL_SECS + 0.1)
        status, answer = stack.run(image=image, cmd=["cat", "/mark"])
    finally:
        registry.resume()
    assert (status, answer["stdout"]) == (200, "still here")


def test_a_tag_that_was_pushed_anew_is_resolved_again(
    stack: Stack, registry: Registry, tmp_path: Path
) -> None:
    image = f"{registry.address}/team/moving:1"
    first = registry.push(marked_image(tmp_path / "one", "one"), "team/moving:1")
    status, answer = stack.run(image=image, cmd=["cat", "/mark"])
    assert (status, answer["stdout"], answer["image_digest"]) == (200, "one", first)
    second = registry.push(marked_image(tmp_path / "two", "two"), "team/moving:1")
    time.sleep(TAG_TTL_SECS + 0.1)
    status, answer = stack.run(image=image, cmd=["cat", "/mark"])
    assert (status, answer["stdout"], answer["image_digest"]) == (200, "two", second)
    by_digest = f"{registry.address}/team/moving@{first}"
    status, answer = stack.run(image=by_digest, cmd=["cat", "/mark"])
    assert (status, answer["stdout"]) == (200, "one")


def test_many_first_runs_of_an_image_pull_it_once(
    stack: Stack, registry: Registry, tmp_path: Path
) -> None:
    with second_registry(registry, tmp_path) as server, ThreadPoolExecutor(6) as pool:
        mark = secrets.token_hex(8)
        manifest = server.serve(marked_image(tmp_path / "layout", mark), "many")
        blobs = {path for path in server.answers if "/blobs/" in path and manifest not in path}
        image = f"{server.address}/many:latest"
        server.hanging |= blobs
        runs = [pool.submit(stack.run, image=image, cmd=["cat", "/mark"]) for _ in range(6)]
        assert server.reached.wait(20)
        time.sleep(0.5)  # the others are waiting for this one pull by now, or queued
        server.release.set()
        answers = [run.result() for run in runs]
        assert [(status, answer["stdout"]) for status, answer in answers] == [(200, mark)] * 6
        assert {path: server.asked[path] for path in blobs} == dict.fromkeys(blobs, 1)


def test_a_client_that_hangs_up_during_the_first_pull_spoils_nothing(
    stack: Stack, registry: Registry, tmp_path: Path
) -> None:
    with second_registry(registry, tmp_path) as server:
        mark = secrets.token_hex(8)
        server.serve(marked_image(tmp_path / "layout", mark), "slow")
        server.hanging |= {path for path in server.answers if "/blobs/" in path}
        image = f"{server.address}/slow:latest"
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{stack.base_url}/run",
                json={"image": image, "cmd": ["cat", "/mark"]},
                timeout=httpx.Timeout(20, read=2),
            )
        assert server.reached.wait(20)
        abandoned = newest_execution(stack)
        server.release.set()
        status, answer = stack.run(image=image, cmd=["cat", "/mark"])
        assert (status, answer["stdout"]) == (200, mark)
        # Nobody waits for it any more; it ends all the same.
        until(lambda: execution(stack, abandoned)["status"] == "finished", "it ends")
        assert execution(stack, abandoned)["stdout"] == mark.encode()


def test_a_client_that_resets_its_connection_leaves_the_service_well(
    stack: Stack, busybox_reference: str
) -> None:
    body = f'{{"image": "{busybox_reference}", "cmd": ["sleep", "1"]}}'.encode()
    address = httpx.URL(stack.base_url)
    head = (
        "POST /run HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    for sent in (head[:20], head + body[:9], head + body):
        with socket.create_connection((address.host, address.port or 80), 10) as client:
            client.sendall(sent)
            time.sleep(0.2)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    last = newest_execution(stack)
    until(lambda: execution(stack, last)["outcome"] == "exited", "the run of the third ends")
    assert "Traceback" not in stack.log
