"""Parquet tables of an artifact: deterministic to write, streamed to read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.kernel.errors import InputError

Row = dict[str, Any]
WORK_FOLDER = "_work"  # a step's private, resumable state inside its first output's draft


def table_paths(folder: Path) -> list[Path]:
    """The Parquet files of an artifact in order, without those of unfinished work.

    Raises:
        InputError: there are none.
    """
    if folder.is_file():
        return [folder]
    paths = sorted(
        path
        for path in folder.rglob("*.parquet")
        if not any(
            part.startswith(".") or part == WORK_FOLDER for part in path.relative_to(folder).parts
        )
    )
    if not paths:
        raise InputError(f"{folder} holds no Parquet file; did the step before it finish?")
    return paths


def read_batches(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Stream an artifact's rows by row group, in bounded memory."""
    for path in table_paths(folder):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns=columns).to_batches()


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Stream an artifact's rows as dictionaries."""
    for batch in read_batches(folder, columns):
        yield from batch.to_pylist()


def count_rows(folder: Path) -> int:
    """The number of rows of an artifact, from the files' footers."""
    return sum(pq.read_metadata(path).num_rows for path in table_paths(folder))


def write_rows(path: Path, rows: Iterable[Row], schema: pa.Schema, batch_size: int = 4096) -> int:
    """Write rows to one Parquet file by rename and give their number; same rows, same bytes.

    Raises:
        pyarrow.ArrowInvalid: a row does not fit the schema.
    """
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    num_rows = 0
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        batch: list[Row] = []
        for row in rows:
            batch.append(row)
            if len(batch) == batch_size:
                num_rows += _flush(writer, batch, schema)
        num_rows += _flush(writer, batch, schema)
    partial.replace(path)
    return num_rows


def _flush(writer: pq.ParquetWriter, batch: list[Row], schema: pa.Schema) -> int:
    num_rows = len(batch)
    if num_rows:
        table = pa.Table.from_pylist(batch, schema=schema)
        table.validate(full=True)
        writer.write_table(table)
        batch.clear()
    return num_rows


def groups_of(folder: Path) -> list[str]:
    """The group folders of an artifact, in order (`00000`, `00001`, …)."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name.isdigit())


def without(row: Mapping[str, Any], names: Iterable[str]) -> Row:
    """A copy of a row without some columns."""
    dropped = set(names)
    return {name: value for name, value in row.items() if name not in dropped}
