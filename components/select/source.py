"""Read GRIT Parquet in bounded memory, however large its row groups are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from components.kernel.contracts import require_parquet
from components.kernel.errors import InputError
from components.kernel.tables import tables_told
from data_contracts.grit import batches, schema_faults
from data_contracts.reading import num_rows

BATCH_RECORDS = 8192


@dataclass(frozen=True)
class RecordBatch:
    """Consecutive records of one group, in GRIT's `READ_SCHEMA` and with their flaws."""

    first_record: int  # number of its first record in the whole source
    group: int
    rows: pa.RecordBatch


def require_grit(folder: Path) -> list[Path]:
    """The files of a source, of which every one has GRIT's columns.

    Raises:
        InputError: names the file and the columns.
    """
    tables = require_parquet("input grit", folder)
    for path, schema in tables:
        if faults := schema_faults(schema):
            raise InputError(f"{path} is not in GRIT's layout: {'; '.join(faults)}")
    return [path for path, _ in tables]


def count_records(paths: Sequence[Path]) -> int:
    """The number of records, from the files' footers."""
    with tables_told():
        return sum(map(num_rows, paths))


def read_column(paths: Sequence[Path], name: str) -> Iterator[pa.Array]:
    """One column of all files, in pieces."""
    with tables_told():
        for path in paths:
            for batch in batches(path, [name]):
                yield batch.column(name)


def read_records(paths: Sequence[Path], records_per_group: int) -> Iterator[RecordBatch]:
    """All records in order, cut where a group ends.

    Raises:
        InputError: a file is damaged.
    """
    first = 0
    with tables_told():
        for path in paths:
            for rows in batches(path, batch_rows=BATCH_RECORDS):
                start = 0
                while start < rows.num_rows:
                    group, offset = divmod(first, records_per_group)
                    length = min(rows.num_rows - start, records_per_group - offset)
                    yield RecordBatch(first, group, rows.slice(start, length))
                    start, first = start + length, first + length
