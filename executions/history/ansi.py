"""Pure: what a program printed as HTML: colours as classes, all else as text."""

import re
from dataclasses import dataclass, replace

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from executions.history.visible import visible

_SEQUENCE = re.compile(
    # ECMA-48: CSI; strings (OSC, DCS, SOS, PM, APC) up to their end; other escapes.
    r"\x1b\[([0-?]*)[ -/]*([@-~])"
    r"|\x1b[\]PX^_][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\)"
    r"|\x1b[ -/]*[0-OQ-WYZ`-~]"
)
_FLAGS = {1: "bold", 2: "faint", 3: "italic", 4: "underlined"}
_ENDED = {22: ("bold", "faint"), 23: ("italic",), 24: ("underlined",)}


@dataclass(frozen=True, slots=True)
class _Style:
    """Select Graphic Rendition, as far as it is shown: the 16 colours and four flags."""

    flags: frozenset[str] = frozenset()
    colour: int | None = None
    ground: int | None = None

    def classes(self) -> str:
        names = [f"a-{flag}" for flag in sorted(self.flags)]
        names += [f"a-c{self.colour}"] if self.colour is not None else []
        names += [f"a-g{self.ground}"] if self.ground is not None else []
        return " ".join(names)


def html(data: bytes) -> SafeString:
    """Safe to stand in a page, whatever `data` is; its only elements are <span class="a-…">.

    A carriage return begins a line, so that nothing is written over what was there.
    """
    text = re.sub(r"\r+\n?", "\n", data.decode("utf-8", "replace"))
    parts, style, at = [], _Style(), 0
    for found in _SEQUENCE.finditer(text):
        parts.append(_span(text[at : found.start()], style))
        at = found.end()
        if found[2] == "m":
            style = _rendition(style, found[1])
    parts.append(_span(text[at:], style))
    return mark_safe("".join(parts))  # noqa: S308 (each part is escaped)


def _span(text: str, style: _Style) -> str:
    if not text:
        return ""
    shown = escape(visible(text))
    classes = style.classes()
    return f'<span class="{classes}">{shown}</span>' if classes else str(shown)


def _rendition(style: _Style, parameters: str) -> _Style:
    if not re.fullmatch(r"[0-9;]{0,200}", parameters):
        return style
    numbers = [int(number[:4] or 0) for number in parameters.split(";")]
    while numbers:
        number = numbers.pop(0)
        style = _extended(style, number, numbers) if number in (38, 48) else _one(style, number)
    return style


def _one(style: _Style, number: int) -> _Style:
    if number == 0:
        return _Style()
    if number in _FLAGS:
        return replace(style, flags=style.flags | {_FLAGS[number]})
    if number in _ENDED:
        return replace(style, flags=style.flags.difference(_ENDED[number]))
    if 30 <= number <= 37 or 90 <= number <= 97:
        return replace(style, colour=number - 30 if number < 90 else number - 82)
    if 40 <= number <= 47 or 100 <= number <= 107:
        return replace(style, ground=number - 40 if number < 100 else number - 92)
    if number == 39:
        return replace(style, colour=None)
    return replace(style, ground=None) if number == 49 else style


def _extended(style: _Style, which: int, numbers: list[int]) -> _Style:
    """One of 256 colours, or of all: shown where it is one of the 16."""
    kind = numbers.pop(0) if numbers else 0
    given = [numbers.pop(0) for _ in range({5: 1, 2: 3}.get(kind, 0)) if numbers]
    number = given[0] if kind == 5 and given and given[0] < 16 else None
    return replace(style, colour=number) if which == 38 else replace(style, ground=number)
