"""Rows of chosen models whose making, change and deletion are entries, whoever's code does it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Model
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save

from executions.audit.recording import record
from executions.audit.requests import current_actor
from executions.audit.verbs import Verb

_BEFORE = "_audited_before"


@dataclass(frozen=True, slots=True)
class Watched:
    """How a model's rows are told of. `hidden` fields are named when they change, never shown."""

    created: Verb | None
    changed: Verb | None
    deleted: Verb | None
    hidden: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    owner: str = ""
    """The attribute with the number of the user that the row belongs to."""


_watched: dict[str, Watched] = {}


def watch(label: str, watched: Watched) -> None:
    """`label` is `app.model` in lower case; it needn't exist (yet)."""
    _watched[label] = watched


def connect() -> None:
    pre_save.connect(_remember, dispatch_uid="audit")
    post_save.connect(_saved, dispatch_uid="audit")
    post_delete.connect(_deleted, dispatch_uid="audit")
    m2m_changed.connect(_listed, dispatch_uid="audit")


def _of(model: type[Model]) -> Watched | None:
    if model.__module__ == "__fake__":
        return None  # a migration's, which may come before the log's own
    return _watched.get(model._meta.label_lower)  # noqa: SLF001 - Django documents _meta


def _remember(sender: type[Model], instance: Model, raw: bool = False, **_: Any) -> None:
    if not raw and _of(sender) and instance.pk is not None:
        everything = sender._base_manager  # noqa: SLF001 - and this one
        setattr(instance, _BEFORE, everything.filter(pk=instance.pk).first())


def _saved(
    sender: type[Model],
    instance: Model,
    created: bool,
    raw: bool = False,
    update_fields: Iterable[str] | None = None,
    **_: Any,
) -> None:
    watched = _of(sender)
    if raw or watched is None:
        return
    before = instance.__dict__.pop(_BEFORE, None)
    changes = _changes(instance, before, watched, update_fields)
    verb = watched.created if created else watched.changed
    if verb is not None and (created or changes):
        _write(instance, watched, verb, changes)


def _deleted(sender: type[Model], instance: Model, **_: Any) -> None:
    watched = _of(sender)
    if watched is not None and watched.deleted is not None:
        _write(instance, watched, watched.deleted, {"was": str(instance)})


def _listed(
    sender: type[Model],  # noqa: ARG001 (the table between the two)
    instance: Model,
    action: str,
    model: type[Model],
    pk_set: set[Any] | None,
    **_: Any,
) -> None:
    """Groups and permissions that a user or a group is given, or loses."""
    done = {"post_add": "added", "post_remove": "removed", "post_clear": "cleared"}.get(action)
    watched = _of(type(instance))
    if done is None or watched is None or watched.changed is None or pk_set == set():
        return
    names = [str(one) for one in model._base_manager.filter(pk__in=pk_set or ())]  # noqa: SLF001
    changes = {done: {model._meta.model_name: sorted(names)}}  # noqa: SLF001
    _write(instance, watched, watched.changed, changes)


def _write(instance: Model, watched: Watched, verb: Verb, details: dict[Any, Any]) -> None:
    owner = getattr(instance, watched.owner, None) if watched.owner else None
    record(
        current_actor(),
        verb,
        instance._meta.label_lower,  # noqa: SLF001
        instance.pk,
        owner_id=owner,
        details={"name": str(instance), **details},
    )


def _changes(
    instance: Model, before: Model | None, watched: Watched, only: Iterable[str] | None
) -> dict[str, Any]:
    """Of a new row its values; of one that was there what it was and what it is."""
    found: dict[str, Any] = {}
    fields = instance._meta.concrete_fields  # noqa: SLF001
    for name in (field.attname for field in fields if not only or field.name in only):
        if name in watched.ignored:
            continue
        old, new = (getattr(before, name) if before else None), getattr(instance, name)
        if old == new:
            continue
        if name in watched.hidden:
            found[name] = "changed"
        else:
            found[name] = [old, new] if before else new
    return found
