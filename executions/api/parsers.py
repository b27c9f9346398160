"""A JSON parser that takes one object, says what is wrong with anything else, and never guesses."""

import json
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from django.conf import settings
from rest_framework.exceptions import APIException, ParseError, UnsupportedMediaType
from rest_framework.parsers import BaseParser

DEPTH_LIMIT = 64


class BodyTooLarge(APIException):
    status_code = 413
    default_code = "too_large"


class StrictJSONParser(BaseParser):
    """application/json in UTF-8: no duplicate keys, no NaN, no infinity, at most 64 levels deep."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,  # noqa: ARG002 (DRF's signature)
    ) -> dict[str, Any]:
        # A client may send wildcards as Content-Type, and DRF would match them.
        if media_type and "*" in media_type.split(";")[0]:
            raise UnsupportedMediaType(media_type)
        limit = settings.BOXER_REQUEST_LIMIT_BYTES
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise BodyTooLarge(f"The request body is larger than {limit} bytes.")
        return strict_object(body)


def strict_object(body: bytes) -> dict[str, Any]:
    """The object that `body` holds; ParseError with the reason for everything else."""
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except UnicodeDecodeError as error:
        raise ParseError(f"The body is not UTF-8 (byte {error.start}).") from None
    except RecursionError:
        raise ParseError(_too_deep()) from None
    except json.JSONDecodeError as error:
        raise ParseError(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except ValueError:
        # The one that is left: int() refuses thousands of digits.
        raise ParseError("The body holds a number with too many digits.") from None
    if not isinstance(value, dict):
        raise ParseError("The body must be a JSON object.")
    _check_depth(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ParseError(f"The key {json.dumps(twice[:100])} is there twice.")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ParseError(f"{name} is not a JSON value.")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ParseError("The body holds a number that is too large.")
    return value


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(DEPTH_LIMIT):
        level = [inner for outer in level for inner in _containers(outer)]
        if not level:
            return
    raise ParseError(_too_deep())


def _containers(value: object) -> list[object]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in inner if isinstance(child, (dict, list))]


def _too_deep() -> str:
    return f"The body is nested deeper than {DEPTH_LIMIT} levels."
