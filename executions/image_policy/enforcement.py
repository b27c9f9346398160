"""Holds an image for a run on the terms that its rule has set, and tells who brought it."""

import contextlib
from collections.abc import Iterator

from executions.image_policy import inventory
from executions.image_policy.decision import Terms
from executions.image_policy.models import CachedImage
from executions.models import Execution
from executions.sandbox.images import Image, ImageNotFound, ImageStore, ImageTooLarge
from executions.sandbox.manifests import ARCHITECTURE
from executions.sandbox.references import parse
from executions.sandbox.spec import SandboxError


class Refused(SandboxError):
    """The image can't be had on the terms of a rule; the message names the rule."""

    code = "image_refused"


class PullWatch:
    """Notices whether an image had to be fetched."""

    def __init__(self) -> None:
        self.fetched = False

    def __call__(self, phase: str, _done: int) -> None:
        self.fetched = self.fetched or phase == "downloading"


@contextlib.contextmanager
def held(store: ImageStore, execution: Execution) -> Iterator[Image]:
    """As ImageStore.hold, which it raises like. Raises Refused."""
    terms = Terms.of(execution.image_terms)
    watch = PullWatch()
    refuse_platform(execution.image, terms)
    with contextlib.ExitStack() as stack:
        try:
            holding = store.hold(
                execution.image,
                pull=_may_pull(execution.image, terms),
                size_limit=terms.max_bytes,
                progress=watch,
            )
            image = stack.enter_context(holding)
        except ImageNotFound as error:
            raise (_not_here(execution.image, terms) if terms.cached_only else error) from None
        except ImageTooLarge as error:
            raise too_large(error, terms, store) from None
        refuse_found(image, terms)
        if watch.fetched:
            inventory.pulled(image=image, by=execution.owner.get_username(), rule=terms.rule)
        yield image


def _may_pull(image: str, terms: Terms) -> bool:
    """What another host has isn't new: it may be brought here as well, by its digest."""
    if not terms.cached_only:
        return True
    others = CachedImage.objects.filter(
        digest=parse(image).digest, state=CachedImage.State.HERE
    ).exclude(host=inventory.host_name())
    return others.exists()


def _not_here(image: str, terms: Terms) -> Refused:
    return Refused(f"{image}: it isn't here any more, and the rule {terms.rule!r} pulls nothing")


def too_large(error: ImageTooLarge, terms: Terms, store: ImageStore) -> SandboxError:
    """Whose limit it was."""
    if terms.max_bytes is None or terms.max_bytes >= store.size_limit:
        return error
    return Refused(f"{error}; that is what the rule {terms.rule!r} allows")


def refuse_platform(image: str, terms: Terms) -> None:
    """Before anything is pulled: of an image for many platforms, a host takes its own."""
    ours = f"linux/{ARCHITECTURE}"
    if terms.platform and terms.platform != ours:
        raise Refused(f"{image}: the rule {terms.rule!r} wants {terms.platform}, this is {ours}")


def refuse_found(image: Image, terms: Terms) -> None:
    """What is only known of an image that is there. Raises Refused."""
    if terms.max_bytes is not None and image.size > terms.max_bytes:
        raise Refused(
            f"{image.reference}: it has {image.size} bytes, "
            f"the rule {terms.rule!r} allows {terms.max_bytes}"
        )
    if terms.platform and image.platform and image.platform != terms.platform:
        raise Refused(
            f"{image.reference}: it is for {image.platform}, "
            f"the rule {terms.rule!r} wants {terms.platform}"
        )
