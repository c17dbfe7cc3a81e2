"""An artifact's tables: which files they are, and their rows in chunks of bounded size."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.engine.reading import decoded_batches

CHUNK_ROWS, CHUNK_BYTES = 100_000, 1 << 28  # whichever comes first
FILE_COLUMN = "file_index"  # which of the artifact's tables a row of a chunk comes from
Columns = dict[str, Any]  # name -> Arrow or numpy array of a chunk's length
AddColumns = Callable[[pa.Table], Columns]
ReadBatches = Callable[[Path, Sequence[str]], Iterator[pa.RecordBatch]]


def list_tables(path: Path) -> list[Path]:
    """The Parquet files of an artifact in order: all below its folder.

    As Hadoop, Spark and Arrow do, it leaves out what begins with a dot or an underscore, file or
    folder: unfinished work and notes. This is the one definition: what a step reads is what its
    contract checks.
    """
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
    return pa.concat_tables(chunks, promote_options="permissive")
