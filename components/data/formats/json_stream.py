"""Read a JSON list of any length, entry by entry: in memory is one entry and what was read with it.

    for entry in stream_entries(file, "results_0.json"):
        …

A file with an entry a line (JSON Lines) is read the same.
"""

import io
import json
import zlib
from collections.abc import Iterator
from typing import IO, Any

from components.core.errors import InputError

PIECE_CHARS = 1 << 20
MAX_ENTRY_CHARS = 1 << 25  # of one entry; those of the data sets have some thousand
BLANKS = " \t\r\n"


def stream_entries(file: IO[bytes], name: str) -> Iterator[Any]:
    """The entries of a list, or of lines, in order; stray bytes spoil their own text only.

    Raises:
        InputError: the file is no JSON, ends early, or has an entry larger than any: says where.
    """
    reader = _Reader(file, name)
    is_list = reader.next_char() == "["
    if is_list:
        reader.skip(1)
    number = 0
    while (char := reader.next_char()) not in ("", "]"):
        if is_list and number:
            if char != ",":
                raise InputError(f"{name}: there is no comma after entry {number - 1}")
            reader.skip(1)
            reader.next_char()
        yield reader.value(number)
        number += 1
    if is_list != (char == "]"):
        raise InputError(f"{name} ends early, after entry {number - 1}; fetch it again")
    reader.skip(1)
    if is_list and reader.next_char():
        raise InputError(f"{name}: there is more after the end of the list")


class _Reader:
    """A text file of which a window is in memory."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape")
        self._name, self._decoder = name, json.JSONDecoder()
        self._text, self._start, self._is_whole = "", 0, False

    def next_char(self) -> str:
        """The next character that is no blank, which stays; "" at the end."""
        while True:
            while self._start < len(self._text):
                if self._text[self._start] not in BLANKS:
                    return self._text[self._start]
                self._start += 1
            if self._is_whole:
                return ""
            self._read_on()

    def skip(self, num_chars: int) -> None:
        """Leave characters behind."""
        self._start += num_chars

    def value(self, number: int) -> Any:
        """The JSON value that begins here.

        Raises:
            InputError: there is none.
        """
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._start)
                # A number at the end of the window may go on after it.
                if end < len(self._text) or self._is_whole:
                    self._start = end
                    return value
            except RecursionError:
                raise InputError(f"{self._name}: entry {number} is too deep") from None
            except ValueError as error:
                is_cut = not self._is_whole and len(self._text) - self._start < MAX_ENTRY_CHARS
                if not is_cut:
                    raise InputError(
                        f"{self._name}: entry {number} is no JSON, or the file ends early "
                        f"({error}); fetch it again"
                    ) from None
            self._read_on()

    def _read_on(self) -> None:
        left = self._text[self._start :]
        try:
            # As much again as there is: an entry of any length is tried a few times only.
            piece = self._file.read(max(PIECE_CHARS, len(left)))
        except (OSError, EOFError, ValueError, zlib.error) as error:  # also of damaged gzip
            raise InputError(f"{self._name} cannot be read: {error}; fetch it again") from None
        self._text, self._start, self._is_whole = left + piece, 0, not piece
