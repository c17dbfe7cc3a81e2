"""What a row's key says of other rows and other artifacts: keys known by 64-bit hashes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.engine.rules import KEY_OCCURRENCES, NUM_MISSING
from data_contracts.engine.tables import (
    FILE_COLUMN,
    AddColumns,
    Columns,
    list_tables,
    read_chunks,
)

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Join:
    """Every value of `column` must occur in the column `to` of another artifact."""

    rule: str
    column: str
    artifact: str
    to: str
    where: tuple[str, str] | None = None  # only the other artifact's rows with this value


def join_column(join: Join, other: Path) -> AddColumns:
    """Adds whether a row's value occurs in the other artifact."""
    known = hashes_of(list_tables(other), join.to, join.where)
    return lambda chunk: {join.rule: is_among(hash_keys(chunk, join.column), known)}


def missing_values(schema: pa.Schema) -> AddColumns:
    """Adds the number of missing required values of a row."""
    required = [field.name for field in schema if not field.nullable]

    def add(chunk: pa.Table) -> Columns:
        missing = np.zeros(len(chunk), dtype=np.int32)
        for name in required:
            if name in chunk.column_names and chunk[name].null_count:
                missing += chunk[name].is_null().to_numpy().astype(np.int32)
        return {NUM_MISSING: missing}

    return add


def key_occurrences(tables: Sequence[Path], key: str, is_unique_per_file: bool) -> AddColumns:
    """Adds how often a row's key occurs in all tables (or in its own file)."""
    found = [hash_keys(chunk, key) for chunk in read_chunks(tables, [key])]
    hashes = np.sort(np.concatenate([np.empty(0, dtype=np.uint64), *found]))
    suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    counts: Counter[tuple[int, object]] = Counter()

    def suspicious(chunk: pa.Table) -> list[tuple[int, tuple[int, object]]]:
        places = np.flatnonzero(is_among(hash_keys(chunk, key), suspects))
        names = chunk[key].take(pa.array(places)).to_pylist()
        files = chunk[FILE_COLUMN].to_numpy()[places] if is_unique_per_file else [0] * len(names)
        return list(zip(places.tolist(), zip(map(int, files), names, strict=True), strict=True))

    if len(suspects):  # equal hashes are only a suspicion: count the keys themselves
        for chunk in read_chunks(tables, [key]):
            counts.update(name for _, name in suspicious(chunk))

    def add(chunk: pa.Table) -> Columns:
        occurrences = np.ones(len(chunk), dtype=np.int64)
        if counts:
            for place, name in suspicious(chunk):
                occurrences[place] = counts[name]
        return {KEY_OCCURRENCES: occurrences}

    return add


def hash_keys(chunk: pa.Table, column: str) -> Hashes:
    """A 64-bit hash of every value of a column; only values of one process can be compared."""
    texts = chunk[column].cast(pa.string()).to_pylist()
    return np.fromiter(map(hash, texts), dtype=np.int64, count=len(texts)).view(np.uint64)


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
