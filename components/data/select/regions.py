"""The regions of a batch of records as flat arrays, so that rules judge thousands at once.

`read_records` reads GRIT's Parquet files, in bounded memory however large a row group is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.core.contracts import require_parquet
from components.core.errors import InputError
from components.core.tables import table_errors
from data_contracts.engine.columns import fixed_lists
from data_contracts.engine.reading import num_rows
from data_contracts.grit import REGION_WIDTH, batches, schema_faults

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Boxes may stick out by rounding; they are clipped.
BOX_TOLERANCE = 1e-3
MAX_SIDE_PX = 1_000_000  # of an image; what says more is no size


@dataclass(frozen=True)
class Regions:
    """N regions of R records; arrays of length N unless the name says `records`."""

    records: pa.RecordBatch  # R rows
    record: Ints  # row of `records`
    index: Ints  # place in the record's `ref_exps`
    is_whole: Bools  # has all seven numbers
    span: Floats  # [N, 2] start and end in characters
    box: Floats  # [N, 4] x1, y1, x2, y2 as shares of width and height
    score: Floats
    phrases: tuple[str, ...]  # "" where the offsets are wrong
    width_px: Floats  # as declared; NaN where unknown
    height_px: Floats
    similarity: Floats  # NaN where unknown

    def __len__(self) -> int:
        return len(self.record)

    @cached_property
    def box_share(self) -> Floats:
        """Area of the boxes as a share of the image."""
        share = (self.box[:, 2] - self.box[:, 0]) * (self.box[:, 3] - self.box[:, 1])
        return np.asarray(share)

    @cached_property
    def box_side_px(self) -> Floats:
        """The shorter side of the boxes in pixels of the declared image size."""
        width = (self.box[:, 2] - self.box[:, 0]) * self.width_px
        height = (self.box[:, 3] - self.box[:, 1]) * self.height_px
        return np.asarray(np.minimum(width, height))


def flatten_regions(records: pa.RecordBatch) -> Regions:
    """The regions of a batch in GRIT's schema, in order."""
    nested = records.column("ref_exps")
    per_record = lengths(nested)
    record = np.repeat(np.arange(records.num_rows), per_record)
    index = np.arange(len(record)) - np.repeat(np.cumsum(per_record) - per_record, per_record)
    values, is_whole = _matrix(nested.flatten())
    return Regions(
        records=records,
        record=record,
        index=index,
        is_whole=is_whole,
        span=values[:, 0:2],
        box=values[:, 2:6],
        score=values[:, 6],
        phrases=_phrases(records.column("caption"), record, values[:, 0:2]),
        width_px=_floats(records.column("width"))[record],
        height_px=_floats(records.column("height"))[record],
        similarity=_floats(records.column("clip_similarity_vitl14"))[record],
    )


def lengths(lists: pa.Array) -> Ints:
    """The length of every list; 0 for null."""
    return np.asarray(pc.fill_null(pc.list_value_length(lists), 0), dtype=np.int64)


def own_values(regions: Regions, rows: Ints, name: str) -> pa.Array:
    """Each region's own value; null if its record has none, or not one for each region."""
    values = regions.records.column(name)
    if values.null_count == len(values):
        return pa.nulls(len(rows), values.type.value_type)
    per_record = lengths(values)
    is_parallel = per_record == lengths(regions.records.column("ref_exps"))
    starts = np.cumsum(per_record) - per_record
    record = regions.record[rows]
    places = pa.array(starts[record] + regions.index[rows], mask=~is_parallel[record])
    return values.flatten().take(places)


def own_points(regions: Regions, rows: Ints) -> pa.Array:
    """Each region's annotated point as shares; null where there is none inside the image."""
    values = own_values(regions, rows, "points")
    points = fixed_lists(values, 2)
    is_inside = ((points >= 0) & (points <= 1)).all(axis=1)
    return pc.if_else(pa.array(is_inside), values, pa.nulls(len(rows), values.type))


def clipped_box(box: Floats) -> Floats:
    """Boxes inside [0, 1]."""
    return np.clip(box, 0.0, 1.0)


def _matrix(inner: pa.Array) -> tuple[Floats, Bools]:
    """Lists of seven numbers as a matrix [N, 7]; NaN rows where the length is another."""
    length = lengths(inner)
    is_whole = np.asarray(length == REGION_WIDTH)
    numbers = _floats(inner.flatten())
    starts = np.cumsum(length) - length
    values = np.full((len(length), REGION_WIDTH), np.nan)
    values[is_whole] = numbers[starts[is_whole][:, None] + np.arange(REGION_WIDTH)]
    return values, is_whole


def _phrases(captions: pa.Array, record: Ints, span: Floats) -> tuple[str, ...]:
    """What the offsets cut out of the captions; "" where they point to nothing."""
    num_chars = pc.fill_null(pc.utf8_length(captions), 0).to_numpy()[record]
    start, end = span[:, 0], span[:, 1]
    with np.errstate(invalid="ignore"):  # NaN compares as false, which is what is meant
        is_inside = (start >= 0) & (start < end) & (end <= num_chars)
        is_exact = (start == np.floor(start)) & (end == np.floor(end))
    is_good = is_inside & is_exact
    starts = np.where(is_good, start, 0).astype(np.int64).tolist()
    ends = np.where(is_good, end, 0).astype(np.int64).tolist()
    texts = captions.to_pylist()
    return tuple(
        texts[row][first:last].strip() if last else ""
        for row, first, last in zip(record.tolist(), starts, ends, strict=True)
    )


def _floats(numbers: pa.Array) -> Floats:
    """Numbers as float64; null becomes NaN, an integer beyond 2**53 is rounded."""
    return np.asarray(pc.cast(numbers, pa.float64(), safe=False).to_numpy(zero_copy_only=False))


def marks(values: pa.Array) -> Bools:
    """Arrow booleans without nulls as numpy's."""
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=bool)


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
    with table_errors():
        return sum(map(num_rows, paths))


def read_column(paths: Sequence[Path], name: str) -> Iterator[pa.Array]:
    """One column of all files, in pieces."""
    with table_errors():
        for path in paths:
            for batch in batches(path, [name]):
                yield batch.column(name)


def read_records(paths: Sequence[Path], records_per_group: int) -> Iterator[RecordBatch]:
    """All records in order, cut where a group ends.

    Raises:
        InputError: a file is damaged.
    """
    first = 0
    with table_errors():
        for path in paths:
            for rows in batches(path, batch_rows=BATCH_RECORDS):
                start = 0
                while start < rows.num_rows:
                    group, offset = divmod(first, records_per_group)
                    length = min(rows.num_rows - start, records_per_group - offset)
                    yield RecordBatch(first, group, rows.slice(start, length))
                    start, first = start + length, first + length
