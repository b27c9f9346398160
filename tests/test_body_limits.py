"""A body over its limit is answered 413 at once, however it is sent; the service stays whole."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.stack import Stack

MIB = 1 << 20


def connection(stack: Stack) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(stack.base_url).netloc, timeout=20)


def raw(stack: Stack, request: bytes) -> bytes:
    """Everything that the service answers before it closes the connection."""
    address = urlsplit(stack.base_url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as client:
        client.sendall(request)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
    return received


@pytest.mark.parametrize(("path", "limit"), [("/run", MIB), ("/files", 10 * MIB + (64 << 10))])
def test_a_declared_length_over_the_limit_is_refused_before_the_body_comes(
    stack: Stack, path: str, limit: int
) -> None:
    began = time.monotonic()
    head = f"POST {path} HTTP/1.1\r\nHost: boxer\r\nContent-Length: {limit + 1}\r\n\r\n"
    status, _, rest = raw(stack, head.encode()).partition(b"\r\n")
    assert time.monotonic() - began < 5
    assert status == b"HTTP/1.1 413 Request Entity Too Large"
    body = json.loads(rest.partition(b"\r\n\r\n")[2])
    assert body == {
        "error": f"The request's body must not exceed {limit} bytes.",
        "code": "too_large",
    }


def test_a_client_that_sends_it_all_the_same_still_sees_the_answer(stack: Stack) -> None:
    client = connection(stack)
    client.request("POST", "/run", body=b" " * (40 * MIB))
    response = client.getresponse()
    assert response.status == 413
    assert json.load(response)["code"] == "too_large"
    client.close()


def test_a_chunked_body_is_cut_at_the_limit(stack: Stack) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(5 * 16):
            yield b" " * 65536

    client = connection(stack)
    client.request(
        "POST", "/run", body=chunks(), encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
    )
    response = client.getresponse()
    assert response.status == 413
    assert json.load(response)["code"] == "too_large"
    client.close()


def test_a_body_of_exactly_the_limit_is_read(stack: Stack) -> None:
    client = connection(stack)
    client.request("POST", "/run", body=b" " * MIB, headers={"Content-Type": "application/json"})
    response = client.getresponse()
    assert response.status == 400
    assert json.load(response)["code"] != "too_large"
    client.close()


def test_who_waits_to_be_told_to_go_on_is_told_not_to(stack: Stack) -> None:
    head = (
        f"POST /run HTTP/1.1\r\nHost: boxer\r\nExpect: 100-continue\r\n"
        f"Content-Length: {2 * MIB}\r\n\r\n"
    )
    answer = raw(stack, head.encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer


@pytest.mark.parametrize("length", ["-1", "ten", "1, 2", "0x10", "", "+5", "9" * 30])
def test_a_length_that_is_none_is_a_bad_request(stack: Stack, length: str) -> None:
    head = f"POST /run HTTP/1.1\r\nHost: boxer\r\nContent-Length: {length}\r\n\r\n{{}}"
    status = raw(stack, head.encode()).split(b" ", 2)[1]
    assert status in {b"400", b"413"}
    assert stack.get("/healthz") == (200, {"ok": True})


def test_an_upload_that_ends_early_leaves_the_service_whole(stack: Stack) -> None:
    address = urlsplit(stack.base_url)
    for _ in range(20):
        with socket.create_connection((address.hostname, address.port)) as client:
            client.sendall(b"POST /files HTTP/1.1\r\nHost: b\r\nContent-Length: 9000000\r\n\r\nabc")
    assert stack.get("/healthz") == (200, {"ok": True})
