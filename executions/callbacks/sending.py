"""One POST to one URL: to an address that was looked at, within a time, reading no more than asked.

The connection goes to the very address that was checked, so that nothing a name server says in
between matters; the certificate is checked for the name.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx

from executions.callbacks.targets import (
    Address,
    Network,
    Resolver,
    TargetRefused,
    addresses_of,
    system_resolver,
)

TOTAL_SECS = 10.0
"""For everything: name, connections, TLS, request, answer."""
CONNECT_SECS = 4.0
"""For one address, so that another one of the name still has its turn."""
READ_SECS = 2.0
READ_BYTES = 64 * 1024
"""Of the answer's body, after its head."""
KEPT_BYTES = 1024


class Interrupted(Exception):
    """The worker is to end."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it. `status` is None without an answer."""

    ms: int
    status: int | None = None
    error: str = ""
    answer: str = ""

    @property
    def delivered(self) -> bool:
        return not self.error


@dataclass(frozen=True, slots=True)
class Sender:
    """How this installation sends. Tests give a resolver and a trust of their own."""

    allowed: Sequence[Network] = ()
    resolve: Resolver | None = None
    trust: ssl.SSLContext | None = None
    total_secs: float = TOTAL_SECS

    def post(
        self,
        url: httpx.URL,
        headers: Mapping[str, str],
        body: bytes,
        *,
        interrupt: int | None = None,
    ) -> Result:
        """POST once. `interrupt` is a descriptor that becomes readable when we are to end.

        Raises Interrupted; whatever else goes wrong is in the result.
        """
        began = time.monotonic()
        status: int | None = None
        answer = error = ""
        try:
            resolve = self.resolve or system_resolver(self.total_secs / 2)
            addresses = addresses_of(url, allowed=self.allowed, resolve=resolve)
            left = max(0.1, self.total_secs - (time.monotonic() - began))
            exchange = self._exchange(url, addresses, headers, body, left)
            status, answer = asyncio.run(_unless(interrupt, exchange))
        except TargetRefused as refused:
            error = str(refused)
        except TimeoutError:
            error = f"no whole answer within {self.total_secs:.0f} s"
        except (httpx.HTTPError, OSError) as failed:
            error = _told(failed)
        if status is not None and not 200 <= status < 300:
            redirect = "; redirects aren't followed" if 300 <= status < 400 else ""
            error = f"it answered {status}{redirect}"
        return Result(round((time.monotonic() - began) * 1000), status, error, answer)

    async def _exchange(
        self,
        url: httpx.URL,
        addresses: Sequence[Address],
        headers: Mapping[str, str],
        body: bytes,
        left: float,
    ) -> tuple[int, str]:
        timeout = httpx.Timeout(left, connect=CONNECT_SECS)
        async with (
            asyncio.timeout(left),
            httpx.AsyncClient(
                verify=self.trust or _trust(), timeout=timeout, trust_env=False
            ) as client,
        ):
            for number, address in enumerate(addresses, 1):
                request = _request(url, address, headers, body)
                request.extensions["timeout"] = timeout.as_dict()
                try:
                    return await _answer(client, request)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    if number == len(addresses):
                        raise
        raise TargetRefused("no address")


def _request(
    url: httpx.URL, address: Address, headers: Mapping[str, str], body: bytes
) -> httpx.Request:
    name = url.netloc.decode("ascii")
    return httpx.Request(
        "POST",
        url.copy_with(host=str(address)),
        headers={"Host": name, "Accept": "*/*", "Connection": "close", **headers},
        content=body,
        extensions={"sni_hostname": url.raw_host.decode("ascii")},
    )


async def _answer(client: httpx.AsyncClient, request: httpx.Request) -> tuple[int, str]:
    response = await client.send(request, stream=True, follow_redirects=False)
    read = bytearray()
    try:
        # What it answers is its status; the rest is for people.
        with contextlib.suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(READ_SECS):
                async for piece in response.aiter_raw():
                    read += piece
                    if len(read) >= READ_BYTES:
                        break
    finally:
        await response.aclose()
    text = read[:KEPT_BYTES].decode("utf-8", "replace")
    return response.status_code, text.replace("\0", "\ufffd")


async def _unless(
    interrupt: int | None, exchange: Coroutine[Any, Any, tuple[int, str]]
) -> tuple[int, str]:
    if interrupt is None:
        return await exchange
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(exchange)
    loop.add_reader(interrupt, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise Interrupted from None
    finally:
        loop.remove_reader(interrupt)


def _told(failed: Exception) -> str:
    """For whom the callback is: nothing in it that only the host knows."""
    kinds: tuple[tuple[type[Exception], str], ...] = (
        (httpx.ConnectTimeout, "the connection timed out"),
        (httpx.ConnectError, "no connection: "),
        (httpx.TimeoutException, "the answer timed out"),
        (httpx.RemoteProtocolError, "the answer is no HTTP: "),
        (httpx.HTTPError, "the connection broke: "),
    )
    for kind, told in kinds:
        if isinstance(failed, kind):
            return told + str(failed)[:300].replace("\0", "") if told.endswith(": ") else told
    return "the connection broke"


@cache
def _trust() -> ssl.SSLContext:
    """The system's certificates, to which an operator may have added one."""
    return ssl.create_default_context()
