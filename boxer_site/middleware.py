"""Django's own middleware, run on the event loop: under ASGI each would cost two thread switches.

None of it blocks: it looks at headers and cookies and sets some. The session alone talks to the
database, and messages may live in it: both go to a thread, but only where a page has used them.
"""

import ipaddress
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from asgiref.sync import sync_to_async
from csp.middleware import CSPMiddleware
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponseForbidden
from django.http.response import HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.security import SecurityMiddleware
from django.utils.deprecation import MiddlewareMixin

from filestore.api.error_shape import error_response

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class _Inline:
    """Goes before a MiddlewareMixin, whose __call__ awaits this when the server is asynchronous."""

    get_response: Callable[[HttpRequest], Any]

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        before = getattr(self, "process_request", None)
        response: HttpResponseBase | None = before(request) if before else None
        if response is None:
            response = await self.get_response(request)
        return await self.after(request, response)

    async def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        after = getattr(self, "process_response", None)
        return after(request, response) if after else response


class Security(_Inline, SecurityMiddleware):
    pass


class ContentPolicy(_Inline, CSPMiddleware):
    """Says on every answer what a page may load; a view that says so itself is left alone."""


class ClientAddress(_Inline, MiddlewareMixin):
    """REMOTE_ADDR becomes the client's where a proxy of BOXER_TRUSTED_PROXIES tells of it.

    X-Forwarded-For is read from its end, where the proxy next to us wrote: up to the first address
    that is no trusted proxy's. What a client itself writes there stands before that.
    """

    def process_request(self, request: HttpRequest) -> None:
        address = request.META.get("REMOTE_ADDR", "")
        if not _is_trusted(address):
            # Whether it came by https is for a proxy to tell, too.
            request.META.pop("HTTP_X_FORWARDED_PROTO", None)
        hops = request.headers.get("X-Forwarded-For", "").split(",")
        while _is_trusted(address) and hops:
            before = hops.pop().strip()
            if _address(before) is None:
                break
            address = before
        request.META["REMOTE_ADDR"] = address


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket of both families says so of IPv4.
    return getattr(found, "ipv4_mapped", None) or found


def _is_trusted(text: str) -> bool:
    address = _address(text)
    return address is not None and any(
        address in network for network in settings.BOXER_TRUSTED_PROXIES
    )


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


class KnownOrigin(_Inline, MiddlewareMixin):
    """Keeps pages of other sites out, which a browser on this host would let speak to us.

    A service on loopback that runs programs without asking for a password must not be had by a name
    that was made to mean 127.0.0.1 (DNS rebinding), nor by a form of somebody else's page. What
    isn't a browser sends neither Origin nor Sec-Fetch-Site, and is not concerned.
    """

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:
        try:
            host = request.get_host()
        except DisallowedHost:
            sent = request.headers.get("Host", "")[:100]
            return error_response(400, f"Host {sent!r}: not of BOXER_ALLOWED_HOSTS", "unknown_host")
        if request.method in SAFE_METHODS:
            return None
        origin = request.headers.get("Origin")
        elsewhere = request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}
        if elsewhere or (origin is not None and _host_of(origin) != host):
            return error_response(403, "Pages of other sites may not do this.", "other_site")
        return None


class Session(_Inline, SessionMiddleware):
    async def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Saving it is a query, and so can be looking at one that was used."""
        if request.session.accessed or request.session.modified:
            save = sync_to_async(self.process_response, thread_sensitive=True)
            return await save(request, response)  # type: ignore[arg-type]
        return self.process_response(request, response)  # type: ignore[arg-type]


class Csrf(_Inline, CsrfViewMiddleware):
    async def process_view(  # type: ignore[override]  # Django adapts either kind
        self, request: HttpRequest, callback: Callable[..., Any], *arguments: Any
    ) -> HttpResponseForbidden | None:
        """For a form it reads the body; the API's views are exempt."""
        if getattr(callback, "csrf_exempt", False):
            return None
        check = sync_to_async(super().process_view, thread_sensitive=True)
        return await check(request, callback, *arguments)


class Authentication(_Inline, AuthenticationMiddleware):
    pass


class Messages(_Inline, MessageMiddleware):
    async def after(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        messages = getattr(request, "_messages", None)
        if messages is None or not (messages.used or messages.added_new):
            return response
        store = sync_to_async(self.process_response, thread_sensitive=True)
        return await store(request, response)  # type: ignore[arg-type]


class FrameOptions(_Inline, XFrameOptionsMiddleware):
    pass
