"""A worker brings an image in and tells how far it is."""

import contextlib
import logging
import time
from typing import Any

from django.db import Error, connections

from executions.image_policy import inventory, prefetches
from executions.image_policy.decision import Terms
from executions.image_policy.enforcement import refuse_found, refuse_platform, too_large
from executions.image_policy.models import Prefetch
from executions.sandbox.images import Image, ImageStore, ImageTooLarge
from executions.sandbox.spec import SandboxError

logger = logging.getLogger(__name__)

TELL_SECS = 0.5
"""How often progress is written, and a cancellation heard of."""


class Cancelled(Exception):
    """Nobody wants it any more."""


class Teller:
    """Writes how far a pull is. Raises Cancelled from within it when it is to end."""

    def __init__(self, prefetch: Prefetch) -> None:
        self._prefetch = prefetch
        self._values: dict[str, Any] = {}
        self._phase = ""
        self._told = 0.0

    def progress(self, phase: str, done: int) -> None:
        self._values["state"] = phase
        if phase == "downloading":
            self._values["bytes_done"] = min(done, self._values.get("bytes_total", done))
        if phase != self._phase or time.monotonic() - self._told >= TELL_SECS:
            self._phase = phase
            self.tell()

    def layers(self, come: int, total: int, total_bytes: int) -> None:
        self._values |= {"layers_done": come, "layers_total": total, "bytes_total": total_bytes}
        if come == total:
            self._values["bytes_done"] = total_bytes

    def tell(self) -> None:
        self._told = time.monotonic()
        try:
            wanted = prefetches.progress(prefetch=self._prefetch, **self._values)
        except Error as error:
            # A pull goes on without the database; its end is told with more patience.
            logger.warning("%s: %s", self._prefetch.reference, error)
            connections.close_all()
            return
        if not wanted:
            raise Cancelled


def pull(store: ImageStore, prefetch: Prefetch) -> Image:
    """Raises ImageError, Refused, Cancelled."""
    terms = Terms.of(prefetch.terms)
    refuse_platform(prefetch.reference, terms)
    teller = Teller(prefetch)
    try:
        if terms.cached_only:
            with store.hold(prefetch.reference, pull=False) as image:
                return image
        image = store.pull(
            prefetch.reference,
            progress=teller.progress,
            layers=teller.layers,
            size_limit=terms.max_bytes,
        )
    except ImageTooLarge as error:
        raise too_large(error, terms, store) from None
    refuse_found(image, terms)
    teller.tell()
    return image


def outcome(store: ImageStore, prefetch: Prefetch) -> dict[str, str] | None:
    """What there is to write of its end: a digest, or an error and its code; None if cancelled."""
    try:
        image = pull(store, prefetch)
    except Cancelled:
        return None
    except SandboxError as error:
        return {"error": str(error), "code": error.code}
    except Exception as error:
        logger.exception("prefetching %s failed", prefetch.reference)
        return {"error": type(error).__name__, "code": "infra_error"}
    with contextlib.suppress(Error):  # the keeper tells of it as well
        inventory.pulled(image=image, by=prefetch.requested_by, rule=Terms.of(prefetch.terms).rule)
    return {"digest": image.digest}


def write(*, prefetch: Prefetch, ended: dict[str, str]) -> bool:
    """May be repeated."""
    if "digest" in ended:
        return prefetches.done(prefetch=prefetch, digest=ended["digest"])
    return prefetches.failed(prefetch=prefetch, error=ended["error"], code=ended["code"])
