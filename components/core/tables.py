"""Parquet tables of an artifact: deterministic to write, streamed to read."""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.core.errors import InputError
from components.core.files import written_whole
from data_contracts.engine.reading import TableError, decoded_batches, num_rows
from data_contracts.engine.tables import list_tables

Row = dict[str, Any]
ImageRows = list[Row]  # the regions of one image
PARTS = "part-*.parquet"  # what `part_name` names
WORK_FOLDER = "_work"  # a step's private, resumable state inside its first output's draft


def part_name(number: int) -> str:
    """The file name of a table of which an artifact, or a group of it, holds some."""
    return f"part-{number:05d}.parquet"


def table_paths(folder: Path) -> list[Path]:
    """The Parquet files of an artifact in order: those that its contract checks.

    Raises:
        InputError: there are none.
    """
    paths = list_tables(folder)
    if not paths:
        raise InputError(f"{folder} holds no Parquet file; did the step before it finish?")
    return paths


@contextmanager
def table_errors() -> Iterator[None]:
    """Turn what is wrong with a table into the error of an input.

    Raises:
        InputError: names the file, and the column where it is one.
    """
    try:
        yield
    except TableError as error:
        raise InputError(str(error)) from None


def read_batches(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Stream an artifact's rows, in bounded memory whatever the files hold.

    Raises:
        InputError: a file is damaged, lacks a column, or holds more than fits in memory.
    """
    with table_errors():
        for path in table_paths(folder):
            yield from decoded_batches(path, columns)


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Stream an artifact's rows as dictionaries.

    Raises:
        InputError: as `read_batches`.
    """
    for batch in read_batches(folder, columns):
        yield from batch.to_pylist()


def split_images(rows: Iterable[Row], images_per_part: int) -> Iterator[list[ImageRows]]:
    """Region rows by image, some images at a time; an empty part if there are no rows.

    The rows of an image follow each other.
    """
    images = (
        list(group)
        for _, group in itertools.groupby(rows, key=lambda row: str(row["image_sha256"]))
    )
    yield list(itertools.islice(images, images_per_part))
    while part := list(itertools.islice(images, images_per_part)):
        yield part


def count_rows(folder: Path) -> int:
    """The number of rows of an artifact, from the files' footers.

    Raises:
        InputError: a file is no Parquet file.
    """
    with table_errors():
        return sum(map(num_rows, table_paths(folder)))


def write_rows(path: Path, rows: Iterable[Row], schema: pa.Schema, batch_size: int = 4096) -> int:
    """Write rows to one Parquet file by rename and give their number; same rows, same bytes.

    Lone surrogates, which JSON can bring and no file of UTF-8 can hold, become U+FFFD.

    Raises:
        pyarrow.ArrowInvalid: a row does not fit the schema.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    num_written = 0
    with written_whole(path) as partial, open_writer(partial, schema) as writer:
        batch: list[Row] = []
        for row in rows:
            batch.append(row)
            if len(batch) == batch_size:
                num_written += _flush(writer, batch, schema)
        num_written += _flush(writer, batch, schema)
    return num_written


@contextmanager
def open_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A writer of a Parquet file; given a text, Arrow would take it for UTF-8 or for a URI."""
    with (
        pa.OSFile(os.fsencode(path), "wb") as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        yield writer


def _flush(writer: pq.ParquetWriter, batch: list[Row], schema: pa.Schema) -> int:
    num_flushed = len(batch)
    if num_flushed:
        try:
            table = pa.Table.from_pylist(batch, schema=schema)
        except UnicodeEncodeError:
            table = pa.Table.from_pylist(storable(batch), schema=schema)
        table.validate(full=True)
        writer.write_table(table)
        batch.clear()
    return num_flushed


def storable(value: Any) -> Any:
    """The value with U+FFFD for every lone surrogate in its texts, at any depth."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {storable(name): storable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [storable(inner) for inner in value]
    return value


def groups_of(folder: Path) -> list[str]:
    """The group folders of an artifact, in order (`00000`, `00001`, …)."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name.isdigit())


def without(row: Mapping[str, Any], names: Iterable[str]) -> Row:
    """A copy of a row without some columns."""
    dropped = set(names)
    return {name: value for name, value in row.items() if name not in dropped}
