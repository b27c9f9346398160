"""Where a callback may go: which URLs at all, and which of the addresses that a name means."""

import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence

import httpx

from executions.callbacks.errors import BadCallbackUrl

URL_LIMIT = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}
LOWEST_PORT = 1024
"""Beside the scheme's own: services below it (SMTP, SSH, Redis' friends) were not made for this."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Sequence[str]]
"""(host, port) ► its addresses. Raises OSError."""


class TargetRefused(Exception):
    """The name means an address that no callback is sent to, or none."""


# IANA's special-purpose registries of IPv4 and IPv6, what isn't globally reachable of them, and
# multicast; ipaddress' is_global has changed its mind about several between versions of Python.
NEVER: tuple[Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # a cloud's own services, in public space
        *("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20"),
    )
)
GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
"""What IPv6 has handed out; loopback, unique local, link-local and multicast lie outside of it."""

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")


def parse(url: str) -> httpx.URL:
    """The URL of a callback. Raises BadCallbackUrl."""
    if len(url) > URL_LIMIT:
        raise _bad(f"must not be longer than {URL_LIMIT} characters")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise _bad(f"is no URL: {error}") from None
    default = DEFAULT_PORTS.get(parsed.scheme)
    if default is None:
        raise _bad("must be an https (or http) URL")
    host = parsed.raw_host
    if not host or b"%" in host or len(host) > 253:
        raise _bad("names no host")
    if parsed.userinfo:
        raise _bad("must not hold a user name or a password")
    port = parsed.port
    if port is not None and port != default and not LOWEST_PORT <= port <= 65535:
        raise _bad(f"its port must be {default}, or at least {LOWEST_PORT}")
    return parsed.copy_with(fragment=None)


def _bad(why: str) -> BadCallbackUrl:
    message = f"callback_url: {why}"
    return BadCallbackUrl(message, fields={"callback_url": [why]})


def addresses_of(url: httpx.URL, *, allowed: Sequence[Network], resolve: Resolver) -> list[Address]:
    """What its host means, asked once: every address was looked at, and only these are used.

    One that is refused refuses all, so that no answer of DNS chooses among them. Raises
    TargetRefused.
    """
    host = url.raw_host.decode("ascii")
    try:
        found = [_parsed(one) for one in resolve(host, url.port or DEFAULT_PORTS[url.scheme])]
    except OSError as error:
        raise TargetRefused(f"{host} can't be resolved: {error.strerror or error}") from None
    if not found:
        raise TargetRefused(f"{host} has no address")
    for address in found:
        if _is_in(address, allowed):
            continue
        if not is_public(address):
            raise TargetRefused(f"{host} isn't a public address")
        if url.scheme != "https":
            raise TargetRefused(f"{host} is a public address: only https goes there")
    return list(dict.fromkeys(found))


def _parsed(address: str) -> Address:
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id:
            raise TargetRefused("an address with a zone isn't public")
        return found.ipv4_mapped or found
    return found


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def is_public(address: Address) -> bool:
    """Whether it is somewhere on the internet; forms that embed an IPv4 address count as that."""
    if isinstance(address, ipaddress.IPv6Address):
        embedded = _embedded(address)
        if embedded is not None:
            return is_public(embedded)
        if address not in GLOBAL_V6:
            return False
    return not _is_in(address, NEVER)


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to it end up at: mapped, NAT64 (RFC 6052), 6to4 (RFC 3056)."""
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address in SIX_TO_FOUR:
        return ipaddress.IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return address.ipv4_mapped


def system_resolver(timeout: float) -> Resolver:
    """The system's, which has no time-out of its own that one could set."""

    def resolve(host: str, port: int) -> list[str]:
        found: list[str] = []
        failed: list[OSError] = []

        def ask() -> None:
            try:
                answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                found.extend(str(answer[4][0]) for answer in answers)
            except UnicodeError:
                failed.append(OSError(f"{host!r} is no host name"))
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=ask, name="resolver", daemon=True)
        thread.start()
        thread.join(timeout)
        if failed:
            raise failed[0]
        if thread.is_alive():
            raise TimeoutError(f"no answer within {timeout:.0f} s")
        return found

    return resolve
