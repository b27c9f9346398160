"""Changes of rules and pins count at once in this process, and are in the audit log."""

from typing import Any

from django.db.models.signals import post_delete, post_save

from executions.audit.verbs import Verb
from executions.audit.watching import Watched, watch
from executions.image_policy import known
from executions.image_policy.models import Pin, Rule


def connect() -> None:
    watch(
        "image_policy.rule",
        Watched(Verb.IMAGE_RULE_CREATED, Verb.IMAGE_RULE_CHANGED, Verb.IMAGE_RULE_DELETED),
    )
    watch(
        "image_policy.pin",
        Watched(Verb.IMAGE_PIN_CREATED, Verb.IMAGE_PIN_CHANGED, Verb.IMAGE_PIN_DELETED),
    )
    for model in (Rule, Pin):
        post_save.connect(_changed, sender=model, dispatch_uid=f"image_policy.{model.__name__}")
        post_delete.connect(_changed, sender=model, dispatch_uid=f"image_policy.{model.__name__}")


def _changed(**_: Any) -> None:
    known.forget()
