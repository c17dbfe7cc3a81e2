"""Read GRIT Parquet in bounded memory, however large its row groups are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.kernel.errors import InputError
from data_contracts.grit import SAMPLE_SCHEMA, schema_faults

BATCH_RECORDS = 8192
BUFFER_BYTES = 1 << 20  # read a column chunk in pieces instead of as a whole


@dataclass(frozen=True)
class RecordBatch:
    """Consecutive records of one group, in GRIT's schema with the optional columns."""

    first_record: int  # number of its first record in the whole source
    group: int
    rows: pa.RecordBatch


def require_grit(paths: Sequence[Path]) -> None:
    """Check that every file has GRIT's columns.

    Raises:
        InputError: names the file and the columns.
    """
    for path in paths:
        try:
            faults = schema_faults(pq.read_schema(path))
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path.name} is not a Parquet file: {error}") from None
        if faults:
            raise InputError(f"{path.name} is not in GRIT's layout: {'; '.join(faults)}")


def count_records(paths: Sequence[Path]) -> int:
    """The number of records, from the files' footers."""
    return sum(pq.read_metadata(path).num_rows for path in paths)


def read_column(paths: Sequence[Path], name: str) -> Iterator[pa.Array]:
    """One column of all files, in pieces."""
    for path in paths:
        for batch in _batches(path, [name]):
            yield conform(batch, path).column(name)


def read_records(paths: Sequence[Path], records_per_group: int) -> Iterator[RecordBatch]:
    """All records in order, cut where a group ends."""
    first = 0
    for path in paths:
        known = set(pq.read_schema(path).names)
        columns = [name for name in SAMPLE_SCHEMA.names if name in known and name != "noun_chunks"]
        for batch in _batches(path, columns):
            rows, start = conform(batch, path), 0
            while start < rows.num_rows:
                group, offset = divmod(first, records_per_group)
                length = min(rows.num_rows - start, records_per_group - offset)
                yield RecordBatch(first, group, rows.slice(start, length))
                start, first = start + length, first + length


def conform(batch: pa.RecordBatch, path: Path) -> pa.RecordBatch:
    """The batch of a file with the types of our schema; columns that it lacks are null.

    Raises:
        InputError: a number does not fit its type.
    """
    try:
        columns = [
            batch.column(field.name).cast(field.type)
            if field.name in batch.schema.names
            else pa.nulls(batch.num_rows, field.type)
            for field in SAMPLE_SCHEMA
        ]
    except pa.ArrowInvalid as error:
        raise InputError(f"{path.name} is not in GRIT's layout: {error}") from None
    return pa.RecordBatch.from_arrays(columns, schema=SAMPLE_SCHEMA)


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
        try:
            for batch in file.iter_batches(BATCH_RECORDS, columns=columns, use_threads=False):
                batch.validate(full=True)  # text that is not UTF-8 must not reach Python
                yield batch
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path.name} is damaged: {error}") from None
