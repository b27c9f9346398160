"""Whoever keeps quotas is asked before a file is stored: who that is registers itself here."""

from collections.abc import Callable

Admit = Callable[[int, int, int | None], None]
"""Owner, bytes, bytes of the file that it replaces or None; raises a FilestoreError to refuse."""

_admitting: list[Admit] = []


def register(admit: Admit) -> None:
    _admitting.append(admit)


def admit(owner_id: int, size: int, replaced_size: int | None) -> None:
    for ask in _admitting:
        ask(owner_id, size, replaced_size)
