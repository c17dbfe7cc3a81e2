"""Read Parquet that somebody else may have written: bounded memory, and every fault by name.

A file of one megabyte can hold gigabytes: one long text that a dictionary repeats in every row, a
row with a billion numbers, a page of zeros. So text is read as dictionaries and decoded in slices
of bounded size, and what a footer says is weighed before anything is read.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as kinds

from data_contracts.engine.footers import Chunk, read_chunks, read_footer

BATCH_ROWS = 8192
BUFFER_BYTES = 1 << 20  # read a column chunk in pieces instead of as a whole
MAX_BATCH_BYTES = 1 << 26  # of decoded text, and of numbers, in memory at a time
MAX_CHUNK_BYTES, MAX_RATIO = 1 << 28, 200  # a column chunk may be large or squeezed, not both
MAX_NESTED_TEXT_BYTES = 1 << 20  # as above, of texts that cannot be read as a dictionary
MAX_VALUES_PER_ROW, FREE_VALUES = 1000, 20_000_000  # of a column chunk, on average
FREE_ROWS = 1_000_000  # more of them need at least a byte each
FREE_FILE_BYTES, MAX_FILE_RATIO = 1 << 30, 2000  # of all that a file unpacks to
MAGIC = b"PAR1"
READ_ERRORS = (
    pa.ArrowException,
    OSError,
    ValueError,
    LookupError,
    MemoryError,
    OverflowError,
)
ADVICE = "bring it again from where it came from, or make it anew"


class TableError(Exception):
    """A Parquet file cannot be used: names the file, and the column where it is one."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path, self.reason = path, reason


def read_schema(path: Path) -> pa.Schema:
    """The columns of a file.

    Raises:
        TableError: it is no Parquet file, or its footer is damaged.
    """
    with open_parquet(path) as file:
        return file.schema_arrow


def num_rows(path: Path) -> int:
    """The number of rows, as the footer says.

    Raises:
        TableError: it is no Parquet file, or its footer is damaged or absurd.
    """
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


@contextmanager
def open_parquet(path: Path, texts: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """An open file; the columns `texts` are read as dictionaries.

    Raises:
        TableError: what is wrong with the file, also while it is read.
    """
    try:
        with path.open("rb") as raw:
            start = raw.read(len(MAGIC))
            num_bytes = raw.seek(0, 2)
            raw.seek(max(0, num_bytes - len(MAGIC)))
            end = raw.read(len(MAGIC))
    except OSError as error:
        raise TableError(path, f"cannot be read: {error.strerror}") from None
    if start != MAGIC or end != MAGIC or num_bytes < 12:
        raise TableError(path, _no_parquet(start, num_bytes))
    try:
        # Given a text, Arrow takes it for UTF-8 and sometimes for a URI: not every path is one.
        with (
            pa.OSFile(os.fsencode(path)) as raw_file,
            pq.ParquetFile(
                raw_file,
                metadata=_metadata(path),
                read_dictionary=list(texts),
                buffer_size=BUFFER_BYTES,
                pre_buffer=False,
            ) as file,
        ):
            _weigh_rows(path, file.metadata, num_bytes)
            yield file
    except READ_ERRORS as error:
        raise TableError(path, f"is damaged ({_first_line(error)}); {ADVICE}") from None


def raw_batches(
    path: Path, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Stream columns (default: all) as the file has them; texts are dictionaries, unchecked.

    Raises:
        TableError: the file is damaged, lacks a column, or would not fit in memory.
    """
    schema = read_schema(path)
    names = list(schema.names if columns is None else columns)
    for name in names:
        if schema.names.count(name) != 1:
            how_often = "is missing" if name not in schema.names else "comes more than once"
            raise TableError(path, f"cannot be used: column '{name}' {how_often}")
    chunks = [chunk for chunk in _chunks(path) if chunk.column in names]
    num_rows_at_once = min(batch_rows, _weigh_chunks(path, chunks))
    by_deltas = {chunk.column for chunk in chunks if chunk.has_deltas}
    texts = [n for n in names if is_plain_text(schema.field(n).type) and n not in by_deltas]
    with open_parquet(path, texts) as file:
        num_read = 0
        for batch in file.iter_batches(num_rows_at_once, columns=names, use_threads=False):
            num_read += batch.num_rows
            yield _compact(batch.select(names))
        if num_read != file.metadata.num_rows:
            told = f"it holds {num_read} rows and says {file.metadata.num_rows}"
            raise TableError(path, f"is damaged ({told}); {ADVICE}")


def decoded_batches(
    path: Path, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Stream columns (default: all) with plain texts, each batch of bounded size.

    Raises:
        TableError: as `raw_batches`; or a text is not UTF-8, or is too large.
    """
    first_row, left = 0, max(FREE_FILE_BYTES, MAX_FILE_RATIO * num_bytes_of(path))
    for batch in raw_batches(path, columns, batch_rows):
        _require_valid(path, batch, first_row)
        for start, length in _slices(path, batch, first_row):
            part = _decoded(batch.slice(start, length))
            left -= part.nbytes
            if left < 0:
                raise TableError(path, "is not read: it unpacks to thousands of times its size")
            yield part
        first_row += batch.num_rows


def num_bytes_of(path: Path) -> int:
    """The size of a file; 0 if it cannot be looked at, which reading it then tells."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _metadata(path: Path) -> pq.FileMetaData:
    """The footer without the types that Arrow's own writer notes, so that all writers are alike.

    With those, one null among lists of fixed size makes Arrow refuse the file that it wrote, and
    a text that is not UTF-8 in a column of categories does.
    """
    footer = read_footer(path).replace(b"ARROW:schema", b"ARROW:unread")
    size = len(footer).to_bytes(4, "little")
    return pq.read_metadata(pa.BufferReader(MAGIC + footer + size + MAGIC))


def is_plain_text(found: pa.DataType) -> bool:
    """Whether a type is text or bytes, not yet as a dictionary."""
    return bool(
        kinds.is_string(found)
        or kinds.is_large_string(found)
        or kinds.is_string_view(found)
        or kinds.is_binary(found)
        or kinds.is_large_binary(found)
        or kinds.is_binary_view(found)
    )


def _no_parquet(start: bytes, num_bytes: int) -> str:
    if not num_bytes:
        return f"is empty (0 bytes), no Parquet file; {ADVICE}"
    if start == MAGIC:
        return f"is cut off after {num_bytes} bytes and no Parquet file any more; {ADVICE}"
    return f"is no Parquet file: it begins with {start!r}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def _weigh_rows(path: Path, metadata: pq.FileMetaData, num_bytes: int) -> None:
    if metadata.num_rows < 0 or metadata.num_rows > max(FREE_ROWS, num_bytes):
        raise TableError(
            path, f"is not read: it says it has {metadata.num_rows} rows in {num_bytes} bytes"
        )


def _chunks(path: Path) -> tuple[Chunk, ...]:
    """What the footer says; of an unchanged file it is read once in a process."""
    try:
        stat = path.stat()
        return _read_chunks(path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    except READ_ERRORS as error:
        raise TableError(path, f"is damaged ({_first_line(error)}); {ADVICE}") from None


@lru_cache(maxsize=1024)
def _read_chunks(path: Path, *_stat: int) -> tuple[Chunk, ...]:
    return tuple(read_chunks(path))


def _weigh_chunks(path: Path, chunks: Sequence[Chunk]) -> int:
    """How many rows fit in memory at a time."""
    num_rows_at_once = BATCH_ROWS
    for chunk in chunks:
        if fault := _absurdity(chunk):
            where = f"column '{chunk.column}' of row group {chunk.row_group}"
            raise TableError(path, f"is not read: {where} {fault}")
        num_rows_at_once = min(num_rows_at_once, int(MAX_BATCH_BYTES / _bytes_per_row(chunk)))
    return max(1, num_rows_at_once)


def _absurdity(chunk: Chunk) -> str:
    """What makes a column chunk a trap; empty if it is none."""
    if min(chunk.unpacked, chunk.packed, chunk.num_values, chunk.num_rows) < 0:
        return "has a negative size"
    if chunk.num_values > MAX_VALUES_PER_ROW * chunk.num_rows + FREE_VALUES:
        return f"holds {chunk.num_values} values in {chunk.num_rows} rows"
    free = MAX_NESTED_TEXT_BYTES if _is_decoded_at_once(chunk) else MAX_CHUNK_BYTES
    if chunk.unpacked > free and chunk.unpacked > MAX_RATIO * chunk.packed:
        return f"would unpack {chunk.packed} bytes to {chunk.unpacked}"
    return ""


def _is_decoded_at_once(chunk: Chunk) -> bool:
    """Whether texts of a dictionary are repeated in memory as they are read."""
    return chunk.is_text and chunk.has_dictionary and (chunk.is_nested or chunk.has_deltas)


def _bytes_per_row(chunk: Chunk) -> float:
    """An upper bound of what an average row takes, at least a byte."""
    values = max(1.0, chunk.num_values / max(1, chunk.num_rows))
    if _is_decoded_at_once(chunk):  # a dictionary may hold one text as large as itself
        return values * min(chunk.unpacked, MAX_NESTED_TEXT_BYTES) + 1
    plain = chunk.unpacked / max(1, chunk.num_rows) if chunk.is_text else 0.0
    return 8 * values + plain


def _require_valid(path: Path, batch: pa.RecordBatch, first_row: int) -> None:
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as error:
                rows = f"rows {first_row} to {first_row + batch.num_rows - 1}"
                reason = f"cannot be used: column '{name}', {rows}: {_first_line(error)}"
                raise TableError(path, reason) from None
        raise


def _slices(path: Path, batch: pa.RecordBatch, first_row: int) -> Iterator[tuple[int, int]]:
    """Start and length of the parts of a batch whose decoded text is small enough."""
    texts = [column for column in batch.columns if _is_text(column)]
    if 0 < batch.num_rows * sum(map(_longest, texts)) <= MAX_BATCH_BYTES:  # nearly always
        yield 0, batch.num_rows
        return
    sizes = np.zeros(batch.num_rows, dtype=np.int64)
    for column in texts:
        if kinds.is_dictionary(column.type):
            lengths = pc.binary_length(_as_bytes(column.dictionary)).take(column.indices)
        else:
            lengths = pc.binary_length(_as_bytes(column))
        sizes += np.asarray(pc.fill_null(lengths, 0), dtype=np.int64)
    if sizes.max(initial=0) > MAX_BATCH_BYTES:
        row, size = first_row + int(sizes.argmax()), sizes.max()
        raise TableError(path, f"is not read: row {row} holds {size} bytes of text")
    start, total = 0, np.concatenate([[0], np.cumsum(sizes)])
    while start < batch.num_rows:
        end = int(np.searchsorted(total, total[start] + MAX_BATCH_BYTES, side="right")) - 1
        yield start, end - start
        start = end


def _is_text(column: pa.Array) -> bool:
    """Whether a column holds texts, plain or of a dictionary."""
    is_dictionary = kinds.is_dictionary(column.type)
    return is_plain_text(column.type.value_type if is_dictionary else column.type)


def _longest(texts: pa.Array) -> int:
    """The bytes of the longest text that a column may hold."""
    values = texts.dictionary if kinds.is_dictionary(texts.type) else texts
    return pc.max(pc.binary_length(_as_bytes(values))).as_py() or 0


def _compact(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with dictionaries of the texts it uses: as read, they are those of a row group.

    Raises:
        IndexError: the file is damaged: a row points out of its dictionary.
    """
    columns = []
    for column in batch.columns:
        column.validate()
        if not kinds.is_dictionary(column.type):
            columns.append(column)
            continue
        lowest, highest = pc.min_max(column.indices).values()
        if lowest.is_valid and not 0 <= lowest.as_py() <= highest.as_py() < len(column.dictionary):
            raise IndexError(f"a text of number {highest} among {len(column.dictionary)}")
        if len(column.dictionary) > batch.num_rows:
            used = pc.dictionary_encode(column.indices)
            texts = column.dictionary.take(used.dictionary)
            column = pa.DictionaryArray.from_arrays(used.indices, texts)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _decoded(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        column.dictionary_decode() if kinds.is_dictionary(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _as_bytes(texts: pa.Array) -> pa.Array:
    is_wide = kinds.is_large_string(texts.type) or kinds.is_large_binary(texts.type)
    return texts.cast(pa.large_binary() if is_wide else pa.binary())
