"""Values as tools write them into annotation files: numbers and ids as text, flags in words.

Also here: what an import leaves out (`LeftOut`).

What can be read in one way only is read; anything else is a `BadValueError` that shows the value.
"""

import hashlib
import json
import math
import re
import reprlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from components.core.errors import InputError
from components.core.files import write_whole
from data_contracts.reasons import ImportReason

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
WHOLE = re.compile(r"(-?[0-9]{1,1000})(?:\.0*)?")
FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True, "": False}
MAX_INT64 = 2**63 - 1
# Bytes that are not UTF-8 arrive as these: nearly always they are of Windows' Western alphabet.
ESCAPED_BYTES = range(0xDC80, 0xDD00)
LONE_HALVES = re.compile("[\ud800-\udfff]")

Id = int | str


class BadValueError(InputError):
    """A value that means nothing where it stands; `reason` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def shown(value: object) -> str:
    """A value in a message: bounded, however large or deep it is."""
    try:
        return reprlib.repr(value).encode("utf-8", "backslashreplace").decode()
    except (ValueError, RecursionError):  # a number of thousands of digits; a deep list
        return f"a {type(value).__name__} too large to show"


def read_id(value: object, name: str) -> Id:
    """An id: a whole number, also as text (`000042`, `42.0`); any other text is an id of its own.

    Raises:
        BadValueError: `bad_id`.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and (text := value.strip()):
        number = WHOLE.fullmatch(text)
        return int(number[1]) if number else text
    raise BadValueError(
        ImportReason.BAD_ID, f"'{name}' is {shown(value)}, not a whole number or a text"
    )


def record_number(key: Id) -> int:
    """The 64-bit number of an id; that of a text, or of a larger number, is drawn from it."""
    if isinstance(key, int) and -MAX_INT64 <= key <= MAX_INT64:
        return key
    digest = hashlib.sha256(str(key).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) >> 1


def read_number(value: object) -> float | None:
    """A finite number, also as text; None if it is none."""
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        number = float(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            return None
    else:
        return None
    return number if math.isfinite(number) else None


def read_numbers(values: list[Any]) -> list[float] | None:
    """Finite numbers, also as texts; None if one of them is none."""
    if set(map(type, values)) <= {int, float}:  # nearly always, and there may be millions
        try:
            numbers = list(map(float, values))
        except OverflowError:
            return None
        return numbers if all(map(math.isfinite, numbers)) else None
    found = [read_number(value) for value in values]
    numbers = [number for number in found if number is not None]
    return numbers if len(numbers) == len(values) else None


def read_whole(value: object, name: str) -> int:
    """A whole number of 64 bits, also as text or with a fraction of zero.

    Raises:
        BadValueError: `bad_number`.
    """
    number = read_number(value)
    if number is None or not number.is_integer() or abs(number) > 2**62:
        raise BadValueError(
            ImportReason.BAD_NUMBER, f"'{name}' is {shown(value)}, not a whole number"
        )
    return int(number)


def read_flag(value: object, name: str) -> bool:
    """A flag, as number, text or word; nothing is no.

    Raises:
        BadValueError: `bad_flag`.
    """
    if value is None:
        return False
    text = str(value).strip().lower() if isinstance(value, str | int | float) else None
    if text not in FLAGS:
        raise BadValueError(ImportReason.BAD_FLAG, f"'{name}' is {shown(value)}, neither 0 nor 1")
    return FLAGS[text]


def read_text(value: object, name: str) -> str:
    """A text of valid characters without needless blanks.

    Raises:
        BadValueError: `bad_text`.
    """
    text = " ".join(mended(value).split()) if isinstance(value, str) else ""
    if not text:
        raise BadValueError(ImportReason.BAD_TEXT, f"'{name}' is {shown(value)}, not a text")
    return text


def mended(text: str) -> str:
    """The text without half characters: stray bytes as Windows-1252, torn emoji left out."""
    return LONE_HALVES.sub(_mended_half, text)


def _mended_half(match: re.Match[str]) -> str:
    code = ord(match[0])
    is_byte = code in ESCAPED_BYTES
    return bytes([code - 0xDC00]).decode("cp1252", "ignore") if is_byte else ""


DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def safe_path(file_name: str) -> str:
    """A file name of an annotation, which is a relative path below the images.

    Raises:
        BadValueError: `bad_file_name`: it leads elsewhere.
    """
    path = PurePosixPath(file_name.replace("\\", "/"))
    is_elsewhere = path.is_absolute() or ".." in path.parts or DRIVE.match(file_name)
    if is_elsewhere or not path.parts or "\0" in file_name:
        detail = f"the file name {shown(file_name)} does not stay below the folder of the images"
        raise BadValueError(ImportReason.BAD_FILE_NAME, detail)
    return path.as_posix()


FILE_NAME = "_left_out.jsonl"  # beside the records, whose readers pass it over; a line an entry
PREFIX = "left_out"


@dataclass
class LeftOut:
    """The entries left out so far."""

    entries: list[tuple[str, str, str]] = field(default_factory=list)  # place, reason, detail
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, place: str, reason: str, detail: str) -> None:
        """Leave out the entry at a place of a file."""
        self.entries.append((place, reason, detail))
        self.reasons[reason] += 1

    @contextmanager
    def judging(self, place: str) -> Iterator[None]:
        """Leave out the entry at a place if reading it fails."""
        try:
            yield
        except BadValueError as error:
            self.add(place, error.reason, error.detail)

    def first_of_each(self) -> str:
        """Each reason with its number and first example, for a message."""
        firsts: dict[str, str] = {}
        for place, reason, detail in self.entries:
            firsts.setdefault(
                reason,
                f"{place}: {detail}" if reason != ImportReason.NO_OBJECT else f"{place} {detail}",
            )
        return "; ".join(
            f"{reason} {number} (first {firsts[reason]})"
            for reason, number in self.reasons.most_common()
        )

    def metrics(self) -> dict[str, int | float]:
        """The number of entries left out, in all and by reason."""
        by_reason = {f"{PREFIX}.{name}": number for name, number in sorted(self.reasons.items())}
        return {PREFIX: self.reasons.total(), **by_reason}

    def write(self, folder: Path) -> None:
        """Keep every entry in a file; no file if there is none."""
        if not self.entries:
            (folder / FILE_NAME).unlink(missing_ok=True)
            return
        names = ("place", "reason", "detail")
        lines = [json.dumps(dict(zip(names, entry, strict=True))) for entry in self.entries]
        write_whole(folder / FILE_NAME, "".join(f"{line}\n" for line in lines))
