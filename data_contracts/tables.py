"""Read the tables of an artifact in chunks of bounded size, and know keys by 64-bit hashes."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.reading import decoded_batches

CHUNK_ROWS, CHUNK_BYTES = 100_000, 1 << 28  # whichever comes first
FILE_COLUMN = "file_index"  # which of the artifact's tables a row of a chunk comes from
Columns = dict[str, Any]  # name -> Arrow or numpy array of a chunk's length
AddColumns = Callable[[pa.Table], Columns]
ReadBatches = Callable[[Path, Sequence[str]], Iterator[pa.RecordBatch]]
Hashes = npt.NDArray[np.uint64]


def list_tables(path: Path) -> list[Path]:
    """The Parquet files of an artifact in order, without hidden ones and unfinished work."""
    if path.is_file():
        return [path]
    return [
        file
        for file in sorted(path.rglob("*.parquet"))
        if not any(part[0] in "._" for part in file.relative_to(path).parts) and not file.is_dir()
    ]


def read_chunks(
    tables: Sequence[Path], columns: Sequence[str], read: ReadBatches = decoded_batches
) -> Iterator[pa.Table]:
    """Stream tables in chunks of about `CHUNK_ROWS` rows, small files together.

    Raises:
        TableError: a file is damaged, lacks a column, or would not fit in memory.
    """
    pending: list[pa.Table] = []
    num_rows = num_bytes = 0
    for index, path in enumerate(tables):
        for batch in read(path, columns):
            file_index = pa.array(np.full(len(batch), index, dtype=np.int32))
            chunk = pa.Table.from_batches([batch]).replace_schema_metadata(None)
            pending.append(chunk.append_column(FILE_COLUMN, file_index))
            num_rows, num_bytes = num_rows + len(chunk), num_bytes + chunk.nbytes
            if num_rows >= CHUNK_ROWS or num_bytes >= CHUNK_BYTES:
                yield _joined(pending)
                pending, num_rows, num_bytes = [], 0, 0
    if num_rows:
        yield _joined(pending)


def _joined(chunks: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(chunks, promote_options="permissive").combine_chunks()


def hash_keys(chunk: pa.Table, column: str) -> Hashes:
    """A 64-bit hash of every value of a column; missing values have one of their own."""
    from pandas.util import hash_array

    texts = pc.fill_null(chunk[column].cast(pa.string()), "\0")
    hashes: Hashes = hash_array(texts.to_numpy(zero_copy_only=False), categorize=False)
    return hashes


def hashes_of(tables: Sequence[Path], column: str, where: tuple[str, str] | None = None) -> Hashes:
    """The sorted, distinct hashes of a column; `where` = (column, value) selects rows."""
    columns = [column, *([where[0]] if where else [])]
    found = [np.empty(0, dtype=np.uint64)]
    for chunk in read_chunks(tables, columns):
        rows = chunk.filter(pc.equal(chunk[where[0]], where[1])) if where else chunk
        found.append(np.unique(hash_keys(rows, column)))
    return np.unique(np.concatenate(found))


def is_among(hashes: Hashes, sorted_hashes: Hashes) -> npt.NDArray[np.bool_]:
    """Whether each hash is one of some sorted ones."""
    if not len(sorted_hashes):
        return np.zeros(len(hashes), dtype=bool)
    places = np.searchsorted(sorted_hashes, hashes).clip(max=len(sorted_hashes) - 1)
    return np.asarray(sorted_hashes[places] == hashes)
