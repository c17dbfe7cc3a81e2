"""GRIT's columns in one form, however a tool wrote them: what a row cannot mean is its own flaw.

Writers differ in the width of numbers, in text types, dictionaries and lists; ids come as numbers
or as text. All of that is read. A value that is no text or no number in one row is a flaw
of that row, so that it costs this row and not the file.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from data_contracts.engine.reading import is_plain_text
from data_contracts.reasons import SelectReason

Bools = npt.NDArray[np.bool_]
MAX_TEXT_BYTES = 1 << 15  # of an address or a caption; a region repeats its record's
SHOWN_BYTES = 1000  # of a text that is too long
MAX_EXACT = 2.0**53  # a larger number is no size of an image, nor exact as a float
NAME = r"^-?\w{1,64}$"
FLAW, FLAW_DETAIL = "flaw", "flaw_detail"  # why a row cannot be used; null for a sound one
# The reasons that `flaw` gives.
FLAWS = (
    SelectReason.TEXT_NOT_UTF8,
    SelectReason.TEXT_TOO_LONG,
    SelectReason.MALFORMED_VALUE,
)


@dataclass
class Flaws:
    """The first thing that is wrong with each row."""

    num_rows: int
    found: dict[int, tuple[str, str]] = field(default_factory=dict)

    def add(self, row: int, reason: str, detail: str) -> None:
        """Note what is wrong with a row, if nothing is known yet."""
        self.found.setdefault(row, (reason, detail))

    def columns(self) -> list[pa.Array]:
        """Reason and detail a row."""
        pairs = [self.found.get(row, (None, None)) for row in range(self.num_rows)]
        return [pa.array([pair[place] for pair in pairs], pa.string()) for place in (0, 1)]


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the columns of `schema`; `id` is text, and columns that it lacks are null.

    The two columns `flaw` and `flaw_detail` are added.
    """
    flaws = Flaws(batch.num_rows)
    columns = []
    for wanted in schema:
        if wanted.name not in batch.schema.names:
            columns.append(pa.nulls(batch.num_rows, wanted.type))
        else:
            read = READERS[wanted.name if wanted.name == "id" else wanted.type]
            columns.append(read(batch.column(wanted.name), wanted.name, flaws))
    fields = [*schema, pa.field(FLAW, pa.string()), pa.field(FLAW_DETAIL, pa.string())]
    return pa.RecordBatch.from_arrays([*columns, *flaws.columns()], schema=pa.schema(fields))


def fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column can be read as the wanted type without a change of meaning."""
    if kinds.is_null(found):  # how pandas writes a column without any value
        return True
    if kinds.is_list(wanted):
        return _is_any_list(found) and fits(found.value_type, wanted.value_type)
    if kinds.is_dictionary(found):
        return fits(found.value_type, wanted)
    return is_plain_text(found) or (wanted != pa.string() and _is_number(found))


def _is_any_list(found: pa.DataType) -> bool:
    return bool(
        kinds.is_list(found)
        or kinds.is_large_list(found)
        or kinds.is_fixed_size_list(found)
        or kinds.is_list_view(found)
        or kinds.is_large_list_view(found)
    )


def _is_number(found: pa.DataType) -> bool:
    return bool(kinds.is_floating(found) or kinds.is_integer(found) or kinds.is_decimal(found))


def _read_text(column: pa.Array, name: str, flaws: Flaws) -> pa.Array:
    """Texts as UTF-8; of a text that is none, or too long, something that can be shown."""
    if kinds.is_null(column.type):
        return pa.nulls(len(column), pa.string())
    if not kinds.is_dictionary(column.type):
        column = column.dictionary_encode()
    texts, wrong = _sound_texts(column.dictionary, name, MAX_TEXT_BYTES)
    for place, (reason, detail) in wrong.items():
        for row in np.flatnonzero(_marks(pc.equal(column.indices, place))).tolist():
            flaws.add(row, reason, detail)
    return texts.take(column.indices)


def _sound_texts(
    values: pa.Array, name: str, max_bytes: int
) -> tuple[pa.Array, dict[int, tuple[str, str]]]:
    """The values as texts, and what is wrong with some of them by place."""
    raw = values.cast(pa.large_binary())
    wrong: dict[int, tuple[str, str]] = {}
    sizes = np.asarray(pc.fill_null(pc.binary_length(raw), 0), dtype=np.int64)
    for place in np.flatnonzero(sizes > max_bytes).tolist():
        wrong[place] = (
            SelectReason.TEXT_TOO_LONG,
            f"{name} of {sizes[place]} bytes, allowed {max_bytes}",
        )
    if wrong:
        raw = pc.if_else(pa.array(sizes > max_bytes), pc.binary_slice(raw, 0, SHOWN_BYTES), raw)
    try:
        return raw.cast(pa.large_string()).cast(pa.string()), wrong
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        for place, value in enumerate(raw.to_pylist()):
            texts.append(None if value is None else value.decode(errors="backslashreplace"))
            if value is not None and not _is_utf8(value):
                wrong.setdefault(
                    place, (SelectReason.TEXT_NOT_UTF8, f"{name} is not UTF-8: {texts[-1]!r:.80}")
                )
        return pa.array(texts, pa.string()), wrong


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_texts(column: pa.Array, name: str, flaws: Flaws) -> pa.Array:
    """Lists of texts, each of any length."""
    inner = _flat(column)
    if kinds.is_null(inner.type):
        return _relisted(column, pa.nulls(len(inner), pa.string()))
    texts, wrong = _sound_texts(_plain(inner), name, 1 << 30)
    if wrong:
        parents = np.repeat(np.arange(len(column)), _lengths(column)).tolist()
        for place, (reason, detail) in wrong.items():
            flaws.add(parents[place], reason, detail)
    return _relisted(column, texts)


def _read_regions(column: pa.Array, name: str, flaws: Flaws) -> pa.Array:
    """Lists of lists of numbers; what is no number is null, which no region may hold."""
    inner = _flat(column)
    numbers, _ = _floats(_flat(inner))
    return _relisted(column, _relisted(inner, numbers))


def _read_float(column: pa.Array, name: str, flaws: Flaws) -> pa.Array:
    numbers, wrong = _floats(column)
    for row in wrong:
        flaws.add(
            row,
            SelectReason.MALFORMED_VALUE,
            f"{name} is no number: {_plain(column)[row].as_py()!r:.80}",
        )
    return numbers


def _read_int(column: pa.Array, name: str, flaws: Flaws) -> pa.Array:
    numbers = _read_float(column, name, flaws).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        is_whole = (np.floor(numbers) == numbers) & (np.abs(numbers) < MAX_EXACT)
    for row in np.flatnonzero(~is_whole & ~np.isnan(numbers)).tolist():
        flaws.add(row, SelectReason.MALFORMED_VALUE, f"{name} is {numbers[row]:g}")
    return pa.array(np.where(is_whole, numbers, 0).astype(np.int64), mask=~is_whole)


def _read_name(column: pa.Array, name: str, flaws: Flaws) -> pa.Array:
    """Ids as texts of letters, digits and `_`; of any other text its digest is the id."""
    column = _plain(column)
    if kinds.is_null(column.type):
        return pa.nulls(len(column), pa.string())
    if kinds.is_integer(column.type):
        return column.cast(pa.string())
    if _is_number(column.type):
        whole = _read_int(column, name, flaws)
        return whole.cast(pa.string())
    texts = pc.utf8_trim_whitespace(_read_text(column, name, flaws))
    is_name = _marks(pc.match_substring_regex(texts, NAME))
    odd = np.flatnonzero(~is_name & _marks(texts.is_valid())).tolist()
    if not odd:
        return texts
    names = texts.to_pylist()
    for row in odd:
        digest = hashlib.sha256(names[row].encode()).hexdigest()
        names[row] = f"h{digest[:24]}" if names[row] else None
    return pa.array(names, pa.string())


READERS: dict[object, Callable[[pa.Array, str, Flaws], pa.Array]] = {
    "id": _read_name,
    pa.string(): _read_text,
    pa.float64(): _read_float,
    pa.int64(): _read_int,
    pa.list_(pa.string()): _read_texts,
    pa.list_(pa.list_(pa.float64())): _read_regions,
}


def _floats(column: pa.Array) -> tuple[pa.Array, list[int]]:
    """Numbers, NaN as null; and the rows whose value is none."""
    column = _plain(column)
    if kinds.is_null(column.type):
        return pa.nulls(len(column), pa.float64()), []
    wrong: list[int] = []
    if is_plain_text(column.type):
        values: list[float | None] = []
        for row, text in enumerate(column.cast(pa.large_binary()).to_pylist()):
            values.append(_number(text))
            if values[-1] is None and text is not None and text.strip():
                wrong.append(row)
        column = pa.array(values, pa.float64())
    numbers = column.cast(pa.float64(), safe=False)
    return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers), wrong


def _number(text: bytes | None) -> float | None:
    """The number that a short text says."""
    is_number = text is not None and re.fullmatch(rb"\s*[-+]?[0-9.eE+-]{1,400}\s*", text)
    try:
        return float(text) if text is not None and is_number else None
    except ValueError:
        return None


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if kinds.is_dictionary(column.type) else column


def _flat(lists: pa.Array) -> pa.Array:
    return pa.nulls(0) if kinds.is_null(lists.type) else pc.list_flatten(lists)


def _lengths(lists: pa.Array) -> npt.NDArray[np.int64]:
    if kinds.is_null(lists.type):
        return np.zeros(len(lists), dtype=np.int64)
    return np.asarray(pc.fill_null(pc.list_value_length(lists), 0), dtype=np.int64)


def _relisted(lists: pa.Array, values: pa.Array) -> pa.Array:
    """Lists of the same lengths as `lists`, null where those are, of other values."""
    offsets = np.concatenate([[0], np.cumsum(_lengths(lists))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=lists.is_null())


def _marks(values: pa.Array) -> Bools:
    return np.asarray(pc.fill_null(values, False)).astype(bool)
