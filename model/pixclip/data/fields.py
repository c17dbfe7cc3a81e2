"""The fields of a JSON object, each of the kind that it must have, or refused by its name."""

import math
from collections.abc import Iterator
from typing import Any

from pixclip.json_files import shown


class Fields:
    """An object of JSON; `path` is where it is in its file, for messages."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{path or 'the whole'} must be an object, got {shown(value)}")
        self._fields, self._path = value, path

    def any(self, name: str) -> Any:
        """A value of any kind.

        Raises:
            ValueError: it is missing.
        """
        if name not in self._fields:
            raise ValueError(f"{self._place(name)} is missing")
        return self._fields[name]

    def text(self, name: str) -> str:
        """A text of whole characters.

        Raises:
            ValueError: it is missing, is no text, or holds half a surrogate pair.
        """
        value = self.any(name)
        if not isinstance(value, str):
            raise self._error(name, "a text", value)
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise self._error(name, "Unicode without half characters", value) from None
        return value

    def wholes(self, name: str, count: int) -> list[int]:
        """A list of so many whole numbers.

        Raises:
            ValueError: it is missing or is none.
        """
        value = self.any(name)
        if not _is_list_of(value, count) or any(type(number) is not int for number in value):
            raise self._error(name, f"{count} whole numbers", value)
        return list(value)

    def numbers(self, name: str, count: int) -> list[float]:
        """A list of so many finite numbers.

        Raises:
            ValueError: it is missing or is none.
        """
        value = self.any(name)
        if not _is_list_of(value, count) or not all(map(_is_finite, value)):
            raise self._error(name, f"{count} finite numbers", value)
        return list(value)

    def section(self, name: str) -> "Fields":
        """An object inside.

        Raises:
            ValueError: it is missing or is none.
        """
        return Fields(self.any(name), self._place(name))

    def sections(self, name: str) -> "Iterator[Fields]":
        """The objects of a list.

        Raises:
            ValueError: it is missing or is none.
        """
        value = self.any(name)
        if not isinstance(value, list):
            raise self._error(name, "a list", value)
        for number, item in enumerate(value):
            yield Fields(item, f"{self._place(name)}[{number}]")

    def _error(self, name: str, wanted: str, value: object) -> ValueError:
        return ValueError(f"{self._place(name)} must be {wanted}, got {shown(value)}")

    def _place(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name


def _is_list_of(value: object, count: int) -> bool:
    return isinstance(value, list) and len(value) == count


def _is_finite(number: object) -> bool:
    if type(number) is int:
        return abs(number) < 2**63
    return type(number) is float and math.isfinite(number)
