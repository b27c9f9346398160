"""What the rules say when an image is asked for: no, or which image on which terms."""

from dataclasses import asdict, dataclass
from typing import Any

from executions.actor import Actor
from executions.errors import ImageRefused
from executions.image_policy.known import Known, KnownRule, known
from executions.image_policy.models import Action, CachedImage
from executions.sandbox.references import Reference, parse


@dataclass(frozen=True, slots=True)
class Terms:
    """What a rule demands of an image that is only known when it is there."""

    rule: str
    max_bytes: int | None = None
    platform: str = ""
    cached_only: bool = False

    @classmethod
    def of(cls, stored: dict[str, Any] | None) -> "Terms":
        """Of Execution.image_terms."""
        return cls(**stored) if stored else cls("")


@dataclass(frozen=True, slots=True)
class Decision:
    image: str
    """As asked, with the digest that it is pinned to."""
    terms: dict[str, Any] | None = None
    """Terms, for a column; None where nothing is demanded."""


def decide(*, actor: Actor, image: str) -> Decision:
    """Whether `actor` may have `image`, a valid reference. Raises ImageRefused naming the rule.

    Without any rule or pin it costs nothing; with some, no query as long as what is known is fresh.
    """
    present = known()
    if not present:
        return Decision(image)
    asked = parse(image)
    wanted = _pinned(asked, present)
    rule = _first(present, str(asked), actor.user_id)
    if rule is None:
        return Decision(image if wanted == asked else str(wanted))
    if rule.action == Action.REFUSE:
        raise ImageRefused(f"image {image!r} is refused by the rule {rule.name!r}")
    cached_only = rule.action == Action.CACHED
    if cached_only:
        wanted = _cached(wanted, image, rule)
    terms = Terms(rule.name, rule.max_bytes, rule.platform, cached_only)
    return Decision(image if wanted == asked else str(wanted), asdict(terms))


def _first(present: Known, reference: str, user_id: int) -> KnownRule | None:
    for rule in present.rules:
        if rule.user_id is not None and rule.user_id != user_id:
            continue
        if not rule.matches(reference):
            continue
        if rule.group_id is None or rule.group_id in present.groups_of(user_id):
            return rule
    return None


def _pinned(asked: Reference, present: Known) -> Reference:
    """With the digest that its tag is pinned to. Raises ImageRefused for another digest."""
    tag = Reference(asked.host, asked.path, asked.tag, "")
    digest = present.pins.get(str(tag)) if asked.tag else None
    if digest is None:
        return asked
    if asked.digest and asked.digest != digest:
        raise ImageRefused(f"image {str(asked)!r} is refused: {tag} is pinned to {digest}")
    return Reference(asked.host, asked.path, asked.tag, digest)


def _cached(wanted: Reference, image: str, rule: KnownRule) -> Reference:
    """With the digest that some host has of it. Raises ImageRefused."""
    if wanted.digest:
        found = CachedImage.objects.filter(digest=wanted.digest)
    else:
        found = CachedImage.objects.filter(references__contains=[str(wanted)])
    digest = (
        found.filter(state=CachedImage.State.HERE)
        .order_by("-first_seen")
        .values_list("digest", flat=True)
        .first()
    )
    if digest is None:
        raise ImageRefused(
            f"image {image!r} is refused by the rule {rule.name!r}: it isn't here yet, "
            "and you may only run what is"
        )
    return Reference(wanted.host, wanted.path, wanted.tag, digest)
