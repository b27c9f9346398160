"""Receipts are made and signed, and verified: what differs, where anything does."""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from executions.models import Execution
from executions.receipts import contents, keys

ALGORITHM = "Ed25519"


class Unreadable(ValueError):
    """Not a receipt at all."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One that was read; nothing of it is believed yet."""

    said: dict[str, Any]
    key: str
    signature: bytes


def issue(*, execution: Execution) -> dict[str, Any]:
    """A signed receipt. Raises NotEnded."""
    said = contents.of_execution(execution)
    return {
        "receipt": said,
        "signature": {
            "algorithm": ALGORITHM,
            "key": keys.key_id(keys.public_key()),
            "value": base64.b64encode(keys.sign(canonical(said))).decode(),
        },
    }


def canonical(said: dict[str, Any]) -> bytes:
    """What is signed: JSON in UTF-8, keys sorted, without white space."""
    text = json.dumps(
        said, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def read(text: str | bytes) -> Receipt:
    """Raises Unreadable. A key that is there twice would mean one thing here and another there."""
    try:
        found = json.loads(text, object_pairs_hook=_no_doubles, parse_constant=_no_constant)
        return _receipt(found)
    except Unreadable:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable(f"it is no receipt: {type(error).__name__}: {error}") from None


def _receipt(found: Any) -> Receipt:
    said, signature = found["receipt"], found["signature"]
    if {*found} != {"receipt", "signature"} or {*signature} != {"algorithm", "key", "value"}:
        raise Unreadable("it must have `receipt` and `signature`, and nothing else")
    if said["format"] != contents.FORMAT or signature["algorithm"] != ALGORITHM:
        raise Unreadable(f"it must be {contents.FORMAT!r}, signed by {ALGORITHM}")
    canonical(said)
    value = base64.b64decode(signature["value"], validate=True)
    return Receipt(said, str(signature["key"]), value)


def _no_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("a key is there twice")
    return found


def _no_constant(name: str) -> None:
    raise Unreadable(f"{name} is no number")


def signature_holds(receipt: Receipt, key: Ed25519PublicKey) -> bool:
    named = keys.key_id(key) == receipt.key
    return named and keys.is_signed(key, receipt.signature, canonical(receipt.said))


def differences(told: Any, known: Any, path: str = "") -> Iterator[str]:
    """Where two JSON values aren't the same, one line each."""
    if isinstance(told, dict) and isinstance(known, dict):
        for key in sorted({*told, *known}):
            inner = f"{path}.{key}" if path else key
            if key not in told:
                yield f"{inner} is missing"
            elif key not in known:
                yield f"{inner} was added"
            else:
                yield from differences(told[key], known[key], inner)
    elif isinstance(told, list) and isinstance(known, list):
        if len(told) != len(known):
            yield f"{path} has {len(told)} entries, not {len(known)}"
        for number, (one, other) in enumerate(zip(told, known, strict=False)):
            yield from differences(one, other, f"{path}[{number}]")
    elif told != known or type(told) is not type(known):
        yield f"{path} is {_short(told)}, not {_short(known)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:100]}…"
