"""What a Parquet footer says of sizes, read without Arrow, which a damaged footer can abort.

The footer is a Thrift structure in the compact protocol; of it only counts and sizes are kept.
The formats: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
and https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_FOOTER_BYTES = 1 << 26
MAX_DEPTH = 16
# Types of the compact protocol.
TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
INTEGERS = (4, 5, 6)
# Field numbers of parquet.thrift.
ROW_GROUPS, COLUMNS, GROUP_ROWS, META_DATA = 4, 1, 3, 3
TYPE, ENCODINGS, PATH, NUM_VALUES, UNPACKED, PACKED = 1, 2, 3, 5, 6, 7
DICTIONARIES = {2, 8}  # PLAIN_DICTIONARY, RLE_DICTIONARY
DELTAS = {6, 7}  # DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY
TEXT_TYPES = (6, 7)  # BYTE_ARRAY, FIXED_LEN_BYTE_ARRAY


@dataclass(frozen=True)
class Chunk:
    """A column chunk as the footer describes it."""

    column: str  # top-level name
    row_group: int
    num_rows: int
    num_values: int
    unpacked: int  # bytes before compression
    packed: int
    is_text: bool
    is_nested: bool
    encodings: frozenset[int]

    @property
    def has_dictionary(self) -> bool:
        """Whether pages may repeat values of a dictionary."""
        return bool(self.encodings & DICTIONARIES)

    @property
    def has_deltas(self) -> bool:
        """Whether pages hold texts by what they share: Arrow cannot read those as a dictionary."""
        return bool(self.encodings & DELTAS)


def read_footer(path: Path) -> bytes:
    """The bytes of a file's footer.

    Raises:
        ValueError: its size cannot be.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        num_bytes = file.seek(0, 2)
        file.seek(num_bytes - 8)
        length = int.from_bytes(file.read(4), "little")
        if not 0 < length <= min(num_bytes - 12, MAX_FOOTER_BYTES):
            raise ValueError(f"a footer of {length} bytes in a file of {num_bytes}")
        file.seek(num_bytes - 8 - length)
        return file.read(length)


def read_chunks(path: Path) -> list[Chunk]:
    """All column chunks of a file.

    Raises:
        ValueError: the footer is damaged.
        OSError: the file cannot be read.
    """
    footer = _Compact(read_footer(path))
    try:
        return list(_chunks(footer.struct(0)))
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise ValueError("its footer is not that of Parquet") from None


def _chunks(footer: dict[int, Any]) -> Iterator[Chunk]:
    for number, group in enumerate(footer.get(ROW_GROUPS, [])):
        for column in group[COLUMNS]:
            meta = column[META_DATA]
            names = [part.decode(errors="replace") for part in meta[PATH]]
            yield Chunk(
                column=names[0],
                row_group=number,
                num_rows=group[GROUP_ROWS],
                num_values=meta[NUM_VALUES],
                unpacked=meta[UNPACKED],
                packed=meta[PACKED],
                is_text=meta[TYPE] in TEXT_TYPES,
                is_nested=len(names) > 1,
                encodings=frozenset(meta[ENCODINGS]),
            )


class _Compact:
    """A reader of the compact protocol: structures become dictionaries by field number."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def struct(self, depth: int) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while header := self._byte():
            step, kind = header >> 4, header & 0x0F
            number = number + step if step else self._integer()
            is_flag = kind in (TRUE, FALSE)
            fields[number] = kind == TRUE if is_flag else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError("its footer is nested too deep")
        if kind in INTEGERS:
            return self._integer()
        if kind in (TRUE, FALSE, BYTE):  # of a list
            return self._byte()
        if kind == DOUBLE:
            return self._take(8)
        if kind == BINARY:
            return self._take(self._varint())
        if kind in (LIST, SET):
            header = self._byte()
            return [self._value(header & 0x0F, depth + 1) for _ in range(self._size(header >> 4))]
        if kind == STRUCT:
            return self.struct(depth)
        raise ValueError(f"its footer holds the unknown type {kind}")

    def _size(self, short: int) -> int:
        """The length of a list, of which every item takes a byte at least."""
        size = self._varint() if short == 0x0F else short
        if size > len(self._data) - self._place:
            raise ValueError("its footer ends too early")
        return size

    def _take(self, length: int) -> bytes:
        start, self._place = self._place, self._place + length
        if self._place > len(self._data):
            raise ValueError("its footer ends too early")
        return self._data[start : self._place]

    def _byte(self) -> int:
        self._place += 1
        return self._data[self._place - 1]

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise ValueError("its footer holds an endless number")
