"""Pure: text of strangers with nothing in it that a reader can't see."""

import re
import shlex
from collections.abc import Sequence

_UNSEEN = re.compile(
    # Controls other than line feed and tab; marks, embeddings, overrides and isolates of direction
    # (Unicode, UAX 9); joiners and other letters without a width; lone surrogates; tags.
    "[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def is_plain(text: str) -> bool:
    return _UNSEEN.search(text) is None


def visible(text: str) -> str:
    """`text` with what has no shape of its own as `\\u202e`."""
    return _UNSEEN.sub(lambda found: escape(found[0]), text)


def escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def command(cmd: Sequence[str]) -> str:
    """As one can paste it into a shell (bash, zsh): what can't be seen is written in $'…'."""
    return " ".join(_word(word) for word in cmd)


def _word(word: str) -> str:
    if is_plain(word):
        return shlex.quote(word)
    quoted = word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"$'{visible(quoted)}'"
