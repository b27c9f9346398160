"""The public Python client works unchanged: every use that its documentation shows, both ways."""

import inspect
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from boxer import (
    AsyncBoxerClient,
    BoxerAPIError,
    BoxerClient,
    BoxerOutputLimitError,
    BoxerTimeoutError,
    ResourceLimits,
)

from tests.stack import Stack

COMPUTE = b"""
import os, json
os.makedirs('/output', exist_ok=True)
with open('/output/result.json', 'w') as f:
    json.dump({'message': 'hello world', 'value': 42}, f)
"""


class Either:
    """Calls the synchronous or the asynchronous client, and waits where that is needed."""

    def __init__(self, client: BoxerClient | AsyncBoxerClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            found = method(*args, **kwargs)
            return await found if inspect.isawaitable(found) else found

        return call


@pytest.fixture(params=["sync", "async"])
async def client(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[Either]:
    if request.param == "sync":
        with BoxerClient(stack.base_url) as synchronous:
            yield Either(synchronous)
    else:
        async with AsyncBoxerClient(stack.base_url) as asynchronous:
            yield Either(asynchronous)


async def test_the_service_is_healthy(client: Either) -> None:
    assert await client.health() is True


async def test_hello_world(client: Either, python_reference: str) -> None:
    result = await client.run(image=python_reference, cmd=["python3", "-c", "print('hello world')"])
    assert (result.stdout, result.stderr, result.exit_code) == ("hello world\n", "", 0)
    assert result.wall_ms > 0
    assert result.exec_id.startswith("boxer-")


async def test_a_script_is_uploaded_and_run(
    client: Either, python_reference: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_bytes(b"print('from a file')")
    with script.open("rb") as f:
        await client.upload_file("sdk/script.py", f)
    result = await client.run(
        image=python_reference, cmd=["python3", "/sdk/script.py"], files=["sdk/script.py"]
    )
    assert (result.stdout, result.exit_code) == ("from a file\n", 0)


@pytest.mark.parametrize("content", [b"bytes", io.BytesIO(b"bytes")], ids=["bytes", "file"])
async def test_what_was_uploaded_can_be_downloaded(client: Either, content: Any) -> None:
    if isinstance(content, io.BytesIO):
        content.seek(0)
    await client.upload_file("sdk/some.bin", content)
    assert await client.download_file("sdk/some.bin") == b"bytes"


async def test_output_files_are_downloaded(client: Either, python_reference: str) -> None:
    await client.upload_file("sdk/compute.py", COMPUTE)
    result = await client.run(
        image=python_reference,
        cmd=["python3", "/sdk/compute.py"],
        files=["sdk/compute.py"],
        persist=True,
    )
    assert result.exit_code == 0
    data = await client.download_file(f"output/{result.exec_id}/result.json")
    assert json.loads(data) == {"message": "hello world", "value": 42}
    assert await client.download_file("sdk/compute.py") == COMPUTE


async def test_output_files_are_gone_unless_they_are_to_persist(
    client: Either, busybox_reference: str
) -> None:
    result = await client.run(image=busybox_reference, cmd=["touch", "/output/result"])
    assert result.exit_code == 0
    with pytest.raises(BoxerAPIError) as raised:
        await client.download_file(f"output/{result.exec_id}/result")
    assert raised.value.status_code == 404


async def test_a_directory_is_uploaded_with_all_that_lies_below(
    client: Either, busybox_reference: str, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    (project / "sub").mkdir(parents=True)
    (project / "a.txt").write_text("a")
    (project / "sub" / "b.txt").write_text("b")
    assert await client.upload_path(project) == ["project/a.txt", "project/sub/b.txt"]
    uploaded = await client.upload_path(project, "elsewhere")
    assert uploaded == ["elsewhere/a.txt", "elsewhere/sub/b.txt"]
    assert await client.upload_path(project / "a.txt") == ["a.txt"]
    assert await client.upload_path(project / "a.txt", "x/y.txt") == ["x/y.txt"]
    files = [*uploaded, "project/sub/b.txt", "x/y.txt"]
    result = await client.run(
        image=busybox_reference, cmd=["cat", *(f"/{name}" for name in files)], files=files
    )
    assert result.stdout == "abba"


async def test_variables_and_the_working_directory(client: Either, busybox_reference: str) -> None:
    result = await client.run(
        image=busybox_reference,
        cmd=["sh", "-c", "echo $NAME $PWD"],
        env=["NAME=value"],
        cwd="/usr/bin",
    )
    assert result.stdout == "value /usr/bin\n"


async def test_limits_are_given_in_part_or_in_full(client: Either, busybox_reference: str) -> None:
    some = ResourceLimits(cpu_cores=0.5, memory_mb=128, wall_clock_secs=10)
    every = ResourceLimits(
        cpu_cores=1.0, memory_mb=64, pids_limit=32, wall_clock_secs=10, nofile=99
    )
    for limits, nofile in ((ResourceLimits(), "256"), (some, "256"), (every, "99")):
        result = await client.run(
            image=busybox_reference, cmd=["sh", "-c", "ulimit -n"], limits=limits
        )
        assert result.stdout.strip() == nofile


@pytest.mark.parametrize("network", [None, "none", "host"])
async def test_networks(client: Either, busybox_reference: str, network: str | None) -> None:
    result = await client.run(image=busybox_reference, cmd=["hostname"], network=network)
    assert result.exit_code == 0


async def test_a_time_out_has_an_exception_of_its_own(
    client: Either, python_reference: str
) -> None:
    with pytest.raises(BoxerTimeoutError) as raised:
        await client.run(
            image=python_reference,
            cmd=["python3", "-c", "while True: pass"],
            limits=ResourceLimits(wall_clock_secs=1),
        )
    assert raised.value.status_code == 408
    assert "wall clock" in str(raised.value)


async def test_too_much_output_has_an_exception_of_its_own(
    client: Either, busybox_reference: str
) -> None:
    with pytest.raises(BoxerOutputLimitError) as raised:
        await client.run(image=busybox_reference, cmd=["yes"])
    assert raised.value.status_code == 507


async def test_an_exit_code_is_no_exception(client: Either, busybox_reference: str) -> None:
    result = await client.run(image=busybox_reference, cmd=["sh", "-c", "echo no >&2; exit 7"])
    assert (result.exit_code, result.stdout, result.stderr) == (7, "", "no\n")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"image": "no-such-image", "cmd": ["true"]}, "no-such-image"),
        ({"image": "oci:/etc", "cmd": ["true"]}, "image"),
        ({"image": "busybox", "cmd": []}, "cmd"),
        ({"image": "busybox", "cmd": ["true"], "files": ["not/there"]}, "not/there"),
        ({"image": "busybox", "cmd": ["true"], "network": "bridge"}, "network"),
        (
            {"image": "busybox", "cmd": ["true"], "limits": ResourceLimits(memory_mb=10**9)},
            "memory_mb",
        ),
    ],
)
async def test_a_bad_request_is_told_in_words(
    client: Either, request_: dict[str, Any], message: str
) -> None:
    with pytest.raises(BoxerAPIError) as raised:
        await client.run(**request_)
    assert raised.value.status_code == 400
    assert message in str(raised.value)


async def test_bad_paths_of_files_are_told_in_words(client: Either) -> None:
    with pytest.raises(BoxerAPIError, match="path") as raised:
        await client.upload_file("../etc/passwd", b"x")
    assert raised.value.status_code == 400
    with pytest.raises(BoxerAPIError) as raised:
        await client.download_file("no/such/file")
    assert raised.value.status_code == 404
