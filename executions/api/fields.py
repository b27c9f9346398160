"""Fields that take a value of the right JSON type or say no: nothing is converted on the quiet."""

import re
from collections.abc import Callable
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

BAD_ELEMENTS_SHOWN = 10
PATTERN = r"^[^\u0000]*$"
"""What any string of a process is: no NUL."""


def text(value: object, *, nul: bool = False) -> str:
    """`value` itself when a process can be given it; ValidationError with the reason otherwise."""
    if not isinstance(value, str):
        raise ValidationError("Must be a string.")
    if "\0" in value and not nul:
        raise ValidationError("Must not contain NUL.")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValidationError("Must not contain lone surrogates.")
    return value


class TextField(serializers.Field[str, Any, str, Any]):
    """A string as it is, at most `max_bytes` long in UTF-8.

    `check` gives the value back or raises; `pattern` only tells the OpenAPI document the same.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        check: Callable[[str], str] | None = None,
        pattern: str = PATTERN,
        nul: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.nul = nul
        self.max_bytes = max_bytes
        self.check = check
        self.pattern = pattern

    def to_internal_value(self, data: Any) -> str:
        value = text(data, nul=self.nul)
        if len(value.encode()) > self.max_bytes:
            raise ValidationError(f"Must not be longer than {self.max_bytes} bytes.")
        return self.check(value) if self.check else value


class TextListField(serializers.Field[list[str], Any, list[str], Any]):
    """A list of strings; what is wrong is told for each, up to the first few."""

    def __init__(
        self,
        *,
        min_items: int = 0,
        max_items: int,
        max_bytes: int,
        check: Callable[[str], str] | None = None,
        pattern: str = PATTERN,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pattern = pattern
        self.min_items = min_items
        self.max_items = max_items
        self.max_bytes = max_bytes
        self.check = check

    def to_internal_value(self, data: Any) -> list[str]:
        if not isinstance(data, list):
            raise ValidationError("Must be a list of strings.")
        if len(data) < self.min_items:
            raise ValidationError("Must not be empty.")
        if len(data) > self.max_items:
            raise ValidationError(f"Must not have more than {self.max_items} elements.")
        values = self._elements(data)
        if sum(len(value.encode()) for value in values) > self.max_bytes:
            raise ValidationError(f"Must not be longer than {self.max_bytes} bytes in sum.")
        return values

    def _elements(self, data: list[Any]) -> list[str]:
        values: list[str] = []
        wrong: dict[str, Any] = {}
        for index, element in enumerate(data):
            try:
                value = text(element)
                values.append(self.check(value) if self.check else value)
            except ValidationError as error:
                wrong[str(index)] = error.detail
                if len(wrong) == BAD_ELEMENTS_SHOWN:
                    break
        if wrong:
            raise ValidationError(wrong)
        return values


class FlagField(serializers.Field[bool, Any, bool, Any]):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise ValidationError("Must be true or false.")
        return data


class LimitField(serializers.Field[float, Any, float, Any]):
    """A number from `minimum` to `maximum`; 0 stands for the default, as null does."""

    def __init__(
        self, *, minimum: float, maximum: float, whole: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.minimum = minimum
        self.maximum = maximum
        self.whole = whole

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, (int, float)):
            raise ValidationError("Must be a number.")
        if data < 0:
            raise ValidationError(f"Must not be negative, and at most {self.maximum}.")
        if data > self.maximum:
            raise ValidationError(f"Must be at most {self.maximum}.")
        if self.whole and data != int(data):
            raise ValidationError("Must be a whole number.")
        if 0 < data < self.minimum:
            raise ValidationError(f"Must be 0 (the default) or at least {self.minimum}.")
        return int(data) if self.whole else float(data)


class WholeField(serializers.Field[int, Any, int, Any]):
    """A whole number within bounds; unlike a limit, 0 is a number like any other."""

    def __init__(self, *, minimum: int, maximum: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.minimum = minimum
        self.maximum = maximum

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, (int, float)) or data != int(data):
            raise ValidationError("Must be a whole number.")
        if not self.minimum <= data <= self.maximum:
            raise ValidationError(f"Must be from {self.minimum} to {self.maximum}.")
        return int(data)


class LabelsField(serializers.Field[dict[str, str], Any, dict[str, str], Any]):
    """Short strings by name."""

    most = 16
    most_bytes = 200
    name_pattern = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$"

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if not isinstance(data, dict):
            raise ValidationError("Must be an object of strings.")
        if len(data) > self.most:
            raise ValidationError(f"Must not have more than {self.most} names.")
        return {self._name(name): self._value(name, value) for name, value in data.items()}

    def _name(self, name: str) -> str:
        if not re.fullmatch(self.name_pattern[1:-1], name):
            raise ValidationError(
                "A name must have 1 to 63 letters, digits, dots, dashes, underscores and slashes,"
                " a letter or digit first."
            )
        return name

    def _value(self, name: str, value: object) -> str:
        try:
            found = text(value)
        except ValidationError as error:
            raise ValidationError({name: error.detail}) from None
        if len(found.encode()) > self.most_bytes:
            raise ValidationError({name: [f"Must not be longer than {self.most_bytes} bytes."]})
        return found


class ClosedSerializer(serializers.Serializer[Any]):
    """A serializer that names the keys it doesn't know instead of dropping them."""

    default_error_messages = {"invalid": "Must be an object."}

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = [key for key in data if key not in self.fields]
            if unknown:
                shown = unknown[:BAD_ELEMENTS_SHOWN]
                raise ValidationError({key[:100]: ["Unknown field."] for key in shown})
        return super().to_internal_value(data)
