"""POST /run refuses what it can't run, names what is wrong, and queues nothing."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings
from django_q.models import OrmQ

from executions.api.serializers import IMAGE_PATTERN
from executions.models import Execution
from tests.answers import error_of

GOOD = {"image": "busybox", "cmd": ["echo", "hi"]}
MANY = ["x"] * 1001


@pytest.fixture(autouse=True)
def nothing_is_queued(anonymous: User) -> Iterator[None]:
    yield
    assert not Execution.objects.exists()
    assert not OrmQ.objects.exists()


def post(client: Client, body: object, content_type: str = "application/json") -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/run", raw, content_type=content_type)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "image: This field is required."),
        (b" ", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"run"', "must be a JSON object"),
        (b"1", "must be a JSON object"),
        (b'{"image": NaN}', "NaN is not a JSON value"),
        (b'{"limits": {"cpu_cores": Infinity}}', "Infinity is not a JSON value"),
        (b'{"limits": {"cpu_cores": -Infinity}}', "-Infinity is not a JSON value"),
        (b'{"limits": {"cpu_cores": 1e999}}', "a number that is too large"),
        (b'{"limits": {"cpu_cores": -1e999}}', "a number that is too large"),
        (b'{"x": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"image": "a", "image": "b"}', '"image" is there twice'),
        (b'{"limits": {"nofile": 1, "nofile": 2}}', '"nofile" is there twice'),
        (b'{"a": \xff}', "not UTF-8 (byte 6)"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"image": "a\x00b"}', "not JSON"),
        (b'{"image": "a"} trailing', "not JSON"),
        (b"{'image': 'a'}", "not JSON"),
        (b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", "deeper than 64 levels"),
        (b'{"a": ' + b"[" * 63 + b"1" + b"]" * 63 + b"}", "a: Unknown field."),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper than 64 levels"),
        (b"[" * 100_000, "deeper than 64 levels"),
        (b'{"a":' * 100_000, "deeper than 64 levels"),
    ],
)
def test_a_body_that_is_no_good_json_object_is_400(client: Client, body: bytes, told: str) -> None:
    assert told in error_of(post(client, body), 400)["error"]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/*",
        "*/*",
        "nonsense",
        ";;;",
        "",
        "application/json, text/plain",
        "a" * 3000,
    ],
)
def test_a_body_that_is_not_declared_as_json_is_415(client: Client, content_type: str) -> None:
    error_of(post(client, GOOD, content_type), 415, "unsupported_media_type")


def test_json_with_a_charset_is_json(client: Client) -> None:
    error_of(post(client, GOOD, "application/json; charset=utf-8"), 503, "no_worker")


@override_settings(BOXER_REQUEST_LIMIT_BYTES=1000)
def test_a_body_over_the_limit_is_413(client: Client) -> None:
    error_of(post(client, GOOD | {"env": ["A=" + "x" * 1000]}), 413, "too_large")


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "image/png", "a" * 3000])
def test_who_takes_no_json_is_406(client: Client, accept: str) -> None:
    raw = json.dumps(GOOD)
    response = client.post("/run", raw, content_type="application/json", headers={"Accept": accept})
    error_of(response, 406, "not_acceptable")


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"image": None}, "image", "may not be null"),
    ({"image": 1}, "image", "Must be a string"),
    ({"image": ["a"]}, "image", "Must be a string"),
    ({"image": {}}, "image", "Must be a string"),
    ({"image": True}, "image", "Must be a string"),
    ({"image": "a\0b"}, "image", "NUL"),
    ({"image": "a\ud800"}, "image", "surrogates"),
    ({"image": "a" * 513}, "image", "512 bytes"),
    ({"cmd": None}, "cmd", "may not be null"),
    ({"cmd": []}, "cmd", "Must not be empty"),
    ({"cmd": "echo hi"}, "cmd", "list of strings"),
    ({"cmd": {"0": "echo"}}, "cmd", "list of strings"),
    ({"cmd": 1}, "cmd", "list of strings"),
    ({"cmd": [""]}, "cmd.0", "it is the program"),
    ({"cmd": ["", "a"]}, "cmd.0", "it is the program"),
    ({"cmd": ["a", 1]}, "cmd.1", "Must be a string"),
    ({"cmd": ["a", None]}, "cmd.1", "Must be a string"),
    ({"cmd": ["a", ["b"]]}, "cmd.1", "Must be a string"),
    ({"cmd": ["a", "b\0"]}, "cmd.1", "NUL"),
    ({"cmd": ["a", "\udfff"]}, "cmd.1", "surrogates"),
    ({"cmd": MANY}, "cmd", "1000 elements"),
    ({"cmd": ["x" * 131073]}, "cmd", "131072 bytes"),
    ({"cmd": ["\u20ac" * 43691]}, "cmd", "131072 bytes"),
    ({"env": {"A": "b"}}, "env", "list of strings"),
    ({"env": "A=b"}, "env", "list of strings"),
    ({"env": ["A"]}, "env.0", "NAME=VALUE"),
    ({"env": ["A=b", "=b"]}, "env.1", "NAME=VALUE"),
    ({"env": [""]}, "env.0", "NAME=VALUE"),
    ({"env": ["A=\0"]}, "env.0", "NUL"),
    ({"env": [None]}, "env.0", "Must be a string"),
    ({"env": ["A=b"] * 1001}, "env", "1000 elements"),
    ({"env": ["A=" + "x" * 131072]}, "env", "131072 bytes"),
    ({"cwd": "tmp"}, "cwd", "absolute path"),
    ({"cwd": "./tmp"}, "cwd", "absolute path"),
    ({"cwd": 1}, "cwd", "Must be a string"),
    ({"cwd": "/\0"}, "cwd", "NUL"),
    ({"cwd": "/" + "x" * 4095}, "cwd", "4095 bytes"),
    ({"files": "a"}, "files", "list of strings"),
    ({"files": [1]}, "files.0", "Must be a string"),
    ({"files": ["a/../b"]}, "files.0", "'..'"),
    ({"files": ["ok", ""]}, "files.1", "empty"),
    ({"files": ["/"]}, "files.0", "names no file"),
    ({"files": ["a\nb"]}, "files.0", "control character"),
    ({"files": ["x" * 256]}, "files.0", "component"),
    ({"files": [f"f{n}" for n in range(257)]}, "files", "256 elements"),
    ({"limits": []}, "limits", "Must be an object"),
    ({"limits": 1}, "limits", "Must be an object"),
    ({"limits": "max"}, "limits", "Must be an object"),
    ({"limits": {"memory": 1}}, "limits.memory", "Unknown field"),
    ({"limits": {"memory_mb": -1}}, "limits.memory_mb", "negative"),
    ({"limits": {"memory_mb": 4097}}, "limits.memory_mb", "at most 4096"),
    ({"limits": {"memory_mb": 10**300}}, "limits.memory_mb", "at most 4096"),
    ({"limits": {"memory_mb": -(10**300)}}, "limits.memory_mb", "negative"),
    ({"limits": {"memory_mb": 1e300}}, "limits.memory_mb", "at most 4096"),
    ({"limits": {"memory_mb": "64"}}, "limits.memory_mb", "Must be a number"),
    ({"limits": {"memory_mb": True}}, "limits.memory_mb", "Must be a number"),
    ({"limits": {"memory_mb": [64]}}, "limits.memory_mb", "Must be a number"),
    ({"limits": {"memory_mb": 64.5}}, "limits.memory_mb", "whole number"),
    ({"limits": {"memory_mb": 0.5}}, "limits.memory_mb", "whole number"),
    ({"limits": {"cpu_cores": -0.5}}, "limits.cpu_cores", "negative"),
    ({"limits": {"cpu_cores": 0.001}}, "limits.cpu_cores", "at least 0.01"),
    ({"limits": {"cpu_cores": 10**400}}, "limits.cpu_cores", "at most"),
    ({"limits": {"cpu_cores": 1e6}}, "limits.cpu_cores", "at most"),
    ({"limits": {"cpu_cores": False}}, "limits.cpu_cores", "Must be a number"),
    ({"limits": {"wall_clock_secs": 601}}, "limits.wall_clock_secs", "at most 600"),
    ({"limits": {"pids_limit": 1025}}, "limits.pids_limit", "at most 1024"),
    ({"limits": {"nofile": 65537}}, "limits.nofile", "at most 65536"),
    ({"network": "bridge"}, "network", "none, sandbox, host"),
    ({"network": ""}, "network", "none, sandbox, host"),
    ({"network": "NONE"}, "network", "none, sandbox, host"),
    ({"network": ["none"]}, "network", "none, sandbox, host"),
    ({"network": {"a": 1}}, "network", "none, sandbox, host"),
    ({"network": 0}, "network", "none, sandbox, host"),
    ({"network": "x" * 100_000}, "network", "none, sandbox, host"),
    ({"persist": "true"}, "persist", "true or false"),
    ({"persist": 1}, "persist", "true or false"),
    ({"persist": 0}, "persist", "true or false"),
    ({"persist": []}, "persist", "true or false"),
    ({"timeout": 5}, "timeout", "Unknown field"),
    ({"Image": "a"}, "Image", "Unknown field"),
    ({"": "a"}, "", "Unknown field"),
    ({"\ud800": "a"}, "\ud800", "Unknown field"),
    ({"k" * 10_000: 1}, "k" * 100, "Unknown field"),
]


@pytest.mark.parametrize(("change", "field", "told"), WRONG)
def test_a_wrong_value_is_400_and_named(
    client: Client, change: dict[str, Any], field: str, told: str
) -> None:
    response = post(client, GOOD | change)
    body = error_of(response, 400)
    assert told in body["error"]
    assert field in body["error"]
    if field:
        assert told in " ".join(body["fields"][field])
    assert len(response.content) < 5000


def test_a_missing_field_is_400_and_named(client: Client) -> None:
    assert error_of(post(client, {"image": "a"}), 400, "invalid")["fields"].keys() == {"cmd"}
    assert error_of(post(client, {"cmd": ["a"]}), 400, "invalid")["fields"].keys() == {"image"}


def test_all_that_is_wrong_is_told_at_once(client: Client) -> None:
    wrong = {"image": 1, "cmd": [], "persist": 2, "limits": {"nofile": -1, "memory_mb": -1}}
    fields = error_of(post(client, wrong), 400, "invalid")["fields"]
    assert fields.keys() == {"image", "cmd", "persist", "limits.nofile", "limits.memory_mb"}


def test_a_thousand_errors_are_not_a_thousand_lines(client: Client) -> None:
    body = error_of(post(client, GOOD | {"cmd": [1] * 1000}), 400, "invalid")
    assert len(body["fields"]) == 10
    body = error_of(post(client, GOOD | {f"k{n}": 1 for n in range(1000)}), 400, "invalid")
    assert len(body["fields"]) == 10


@pytest.mark.parametrize(
    "image",
    [
        "",
        " ",
        "dir:/etc",
        "oci:/tmp/x",
        "docker-daemon:busybox",
        "docker://busybox",
        "--help",
        "busybox latest",
        "busybox\n",
        "BusyBox",
        "busybox@sha256:12",
        "../../etc",
        "b\u00fcsybox",
    ],
)
def test_an_image_that_no_registry_could_serve_is_400(client: Client, image: str) -> None:
    body = error_of(post(client, GOOD | {"image": image}), 400, "invalid_image")
    assert repr(image) in body["error"]
    assert body["fields"].keys() == {"image"}


@pytest.mark.parametrize(
    "image",
    [
        "busybox",
        "python:3.12-slim",
        "library/python",
        "ghcr.io/a/b.c/d__e-f:V1.0_x",
        "localhost:5000/a",
        "[::1]:5000/a",
        "Registry.Example/a",
        "a@sha256:" + "0" * 64,
        "a:t@sha256:" + "0" * 64,
    ],
)
def test_an_image_that_a_registry_could_serve_passes_its_pattern_too(
    client: Client, image: str
) -> None:
    assert re.search(IMAGE_PATTERN, image)
    error_of(post(client, GOOD | {"image": image}), 503, "no_worker")


@pytest.mark.parametrize(
    "path", ["proc/1/mem", "/dev/null", "sys/x", "output/a", "./output", "//dev//x"]
)
def test_a_reserved_input_is_refused(client: Client, path: str) -> None:
    body = error_of(post(client, GOOD | {"files": ["ok", path]}), 400, "file_refused")
    assert body["fields"].keys() == {"files.1"}


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        (["a", "a"], "a is there twice"),
        (["a/b", "/a//b"], "a/b is there twice"),
        (["a", "./a"], "a is there twice"),
        (["a", "a/b"], "a/b lies below it"),
        (["a/b/c", "z", "a!", "a"], "a/b/c lies below it"),
    ],
)
def test_inputs_that_collide_are_refused(client: Client, paths: list[str], told: str) -> None:
    body = error_of(post(client, GOOD | {"files": paths}), 400, "file_refused")
    assert told in body["error"]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"env": None, "cwd": None, "files": None, "limits": None, "network": None, "persist": None},
        {"cwd": ""},
        {"cmd": ["echo", ""]},
        {"env": ["A=", "B=c=d", "C=a\nb"]},
        {"limits": {}},
        {"limits": {"memory_mb": 64.0, "cpu_cores": 1}},
        {"limits": dict.fromkeys(["cpu_cores", "memory_mb", "nofile", "pids_limit"], 0)},
        {"limits": {"wall_clock_secs": None, "nofile": -0.0}},
        {"files": ["proc2/a", "a", "a.b", "a!/b"]},
    ],
)
def test_a_good_request_is_only_missing_a_worker(client: Client, change: dict[str, Any]) -> None:
    error_of(post(client, GOOD | change), 503, "no_worker")
