"""What every format of annotated objects and parts gives, and how its tables are read.

A format is a class with a `name`, the `super_class` of its objects and a method `read`. Rows that
cannot be used are left out by file and line (`LeftOut`): one bad row costs itself.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from components.core.errors import InputError
from components.data.formats.files import Files
from components.data.formats.values import BadValueError, LeftOut, mended, read_number, shown
from data_contracts.reasons import PartReason
from pixclip.masks import Box

Split = Literal["train", "test", ""]  # "": the source has none, all of it is what it is named for
Point = tuple[float, float]
TRAIN: Literal["train"] = "train"
TEST: Literal["test"] = "test"


@dataclass(frozen=True, slots=True)
class Part:
    """A named part of an object, in pixels of the image: a point, a box, or not visible."""

    name: str
    place: str  # file and line
    point: Point | None = None
    box: Box | None = None
    segmentation: Any = None  # in COCO's forms


@dataclass(frozen=True, slots=True)
class PartImage:
    """An image with one object, or a COCO image with the parts of several."""

    id: str  # in its source
    place: str  # file and line
    file: str  # its name among the source's files
    split: Split
    super_class: str
    labels: tuple[str, ...] = ()  # names of its class, the finest first
    box: Box | None = None  # of the object, in pixels
    segmentation: str = ""  # name of the object's mask among the files
    size: tuple[int, int] | None = None  # width and height, where the source tells
    banner_px: int = 0  # rows at the bottom that show a notice, not the photograph
    md5: str = ""  # of the image's bytes, where the source tells
    parts: tuple[Part, ...] = ()
    attributes: tuple[str, ...] = ()  # what annotators say of the object
    has_parts: bool = True  # whether the source annotates parts at all
    fault: BadValueError | None = None  # why neither it nor its parts can be used


class PartFormat(Protocol):
    """Reads one published layout."""

    @property
    def name(self) -> str:
        """The setting that names such a source."""
        ...

    def read(self, files: Files, left_out: LeftOut) -> list[PartImage]:
        """All images, training and test.

        Raises:
            InputError: these are not the files of the format: names what is missing, and the
                layout.
        """
        ...


def root_of(files: Files, format_name: str, required: Sequence[str], layout: str) -> str:
    """The folder in a source that holds the format's files: a prefix of names, "" or with `/`.

    Raises:
        InputError: no folder holds all of them.
    """
    present: Counter[str] = Counter()
    for name in files.names:
        for wanted in required:
            if name == wanted or name.endswith(f"/{wanted}"):
                present[name.removesuffix(wanted)] += 1
    root = min(present, key=lambda root: (-present[root], len(root), root), default="")
    missing = [name for name in required if root + name not in files.names]
    if missing:
        raise InputError(
            f"{files.address} is not {format_name}: {', '.join(root + name for name in missing)} "
            f"is missing. The layout is\n{layout}"
        )
    return root


def read_text(files: Files, name: str) -> Iterator[tuple[str, str]]:
    """The lines of a table that are not blank, each with its place `file:line`."""
    text = files.read(name).removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{name}:{number}", mended(line).strip("\r\n ")


class Table:
    """The rows of a table by their first field, an id; the others are left out."""

    def __init__(
        self, files: Files, name: str, num_fields: int, left_out: LeftOut, *, is_open: bool = False
    ) -> None:
        """`is_open`: the last field is a text that may hold blanks."""
        self.name, self.rows, self.places = name, dict[str, list[str]](), dict[str, str]()
        for place, line in read_text(files, name):
            with left_out.judging(place):
                fields = split_fields(line, num_fields, is_open=is_open)
                if fields[0] in self.rows:
                    raise BadValueError(
                        PartReason.REPEATED_ROW, f"{shown(line)}: an earlier row has this id"
                    )
                self.rows[fields[0]], self.places[fields[0]] = fields[1:], place

    def text(self, key: str, what: str) -> str:
        """The row of an id as one text.

        Raises:
            BadValueError: there is none.
        """
        if key not in self.rows:
            raise BadValueError(
                PartReason.UNKNOWN_REFERENCE, f"{self.name} has no {what} {shown(key)}"
            )
        return " ".join(self.rows[key])


def split_fields(line: str, num_fields: int, *, is_open: bool = False) -> list[str]:
    """The fields of a row.

    Raises:
        BadValueError: there are more or fewer.
    """
    fields = line.split(None, num_fields - 1) if is_open else line.split()
    if len(fields) != num_fields:
        raise BadValueError(
            PartReason.MALFORMED_ROW, f"{shown(line)} has {len(fields)} fields, not {num_fields}"
        )
    return fields


def numbers_of(fields: Sequence[str], what: str) -> list[float]:
    """Finite numbers.

    Raises:
        BadValueError: one is none.
    """
    numbers = [read_number(field) for field in fields]
    found = [number for number in numbers if number is not None]
    if len(found) != len(numbers):
        raise BadValueError(
            PartReason.MALFORMED_ROW, f"{what}: {shown(' '.join(fields))} are not numbers"
        )
    return found


def require_area(box: Box, place: str) -> Box:
    """A box that has an area.

    Raises:
        BadValueError: it has none.
    """
    if not (box[2] > box[0] and box[3] > box[1]):
        raise BadValueError(PartReason.MALFORMED_ROW, f"{place}: the object's box {box} is empty")
    return box


def require_known(key: str, known: Collection[str], what: str, where: str) -> None:
    """Refuse a row of something that no file lists.

    Raises:
        BadValueError: it is unknown.
    """
    if key not in known:
        raise BadValueError(PartReason.UNKNOWN_REFERENCE, f"{where} has no {what} {shown(key)}")
