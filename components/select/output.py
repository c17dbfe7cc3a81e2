"""The rows that `select` writes: kept regions as tables, dropped ones for the quarantine."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.kernel.tables import Row
from components.kernel.tally import quarantine_row
from components.select.regions import Bools, Ints, Regions, clipped_box, lengths
from components.select.settings import SelectSettings
from components.select.verdict import RULES, Verdict
from data_contracts.records import SCHEMA


def region_table(regions: Regions, rows: Ints, record_ids: list[str]) -> pa.Table:
    """The chosen regions in the schema of `records`; `record_ids` is one a record."""
    record = regions.record[rows]
    names = [record_ids[number] for number in record.tolist()]
    box = clipped_box(regions.box[rows])
    source = regions.records.take(pa.array(record))
    mask_counts = _parallel(regions, rows, "masks")
    columns = {
        "region_id": [
            f"{name}-{index:02d}"
            for name, index in zip(names, regions.index[rows].tolist(), strict=True)
        ],
        "record_id": names,
        "url": _text(source, "url"),
        "image_caption": _text(source, "caption"),
        "phrase": [regions.phrases[row] for row in rows.tolist()],
        "box_norm": _rows_of(box, pa.float64()),
        "score": regions.score[rows],
        "clip_similarity": source.column("clip_similarity_vitl14"),
        "mask_counts": mask_counts,
        "mask_size": _mask_sizes(source, mask_counts),
        "mask_fault": _parallel(regions, rows, "mask_faults"),
        "declared_size": _declared_sizes(source),
        "split": _text(source, "split"),
        "subset": _text(source, "subset"),
    }
    return pa.table(columns, schema=SCHEMA)


def name_records(regions: Regions, has_unique_id: Bools, first_record: int) -> list[str]:
    """A name for each record: its id; with its row number where that alone is not unique."""
    ids = regions.records.column("id").to_pylist()
    return [
        str(name) if is_unique else f"{'none' if name is None else name}@{first_record + row}"
        for row, (name, is_unique) in enumerate(zip(ids, has_unique_id.tolist(), strict=True))
    ]


def dropped_rows(
    regions: Regions, verdict: Verdict, record_ids: list[str], settings: SelectSettings
) -> Iterator[Row]:
    """The dropped regions of a batch in the quarantine's form."""
    rows = verdict.dropped
    table = region_table(regions, rows, record_ids)
    boxes = regions.box[rows].tolist()  # as the source gave them, not clipped
    for i, row, box in zip(rows.tolist(), table.to_pylist(), boxes, strict=True):
        row["box_norm"] = [_finite(value) for value in box]
        row["score"] = _finite(row["score"])
        row["clip_similarity"] = _finite(row["clip_similarity"])
        rule = RULES[verdict.rule[i]]
        yield quarantine_row("select", row, rule.reason, rule.explain(regions, i, settings))


class GroupWriter:
    """Writes kept regions to one file a group, each visible only when it is complete."""

    def __init__(self, records: Path) -> None:
        self._records = records
        self._path: Path | None = None
        self._writer: pq.ParquetWriter | None = None
        self.num_groups = 0

    def write(self, group: int, table: pa.Table) -> None:
        """Append rows to a group; groups come in order."""
        path = self._records / f"{group:05d}" / "part-00000.parquet"
        if path != self._path:
            self.close()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._path = path
            self._writer = pq.ParquetWriter(_partial(path), SCHEMA, compression="zstd")
            self.num_groups += 1
        assert self._writer is not None
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the open group."""
        if self._writer is not None and self._path is not None:
            self._writer.close()
            _partial(self._path).replace(self._path)
        self._writer = self._path = None


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _text(source: pa.RecordBatch, name: str) -> pa.Array:
    return pc.fill_null(source.column(name), "")


def _rows_of(matrix: Any, kind: pa.DataType) -> pa.Array:
    """A matrix as an Arrow list a row."""
    offsets = pa.array(np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(matrix.ravel(), kind))


def _parallel(regions: Regions, rows: Ints, name: str) -> pa.Array:
    """Each region's own value; null if its record has none, or not one for each region."""
    values = regions.records.column(name)
    if values.null_count == len(values):
        return pa.nulls(len(rows), pa.string())
    per_record = lengths(values)
    is_parallel = per_record == lengths(regions.records.column("ref_exps"))
    starts = np.cumsum(per_record) - per_record
    record = regions.record[rows]
    places = pa.array(starts[record] + regions.index[rows], mask=~is_parallel[record])
    return values.flatten().take(places)


def _declared_sizes(source: pa.RecordBatch) -> pa.Array:
    """[height, width] of the image, as the source tells; null where it does not."""
    sizes = zip(*(source.column(name).to_pylist() for name in ("height", "width")), strict=True)
    kind = SCHEMA.field("declared_size").type
    return pa.array([None if None in size else list(size) for size in sizes], kind)


def _mask_sizes(source: pa.RecordBatch, mask_counts: pa.Array) -> pa.Array:
    """[height, width] where there is a mask."""
    kind = SCHEMA.field("mask_size").type
    if mask_counts.null_count == len(mask_counts):
        return pa.nulls(len(mask_counts), kind)
    heights, widths = (source.column(name).to_pylist() for name in ("height", "width"))
    is_there = mask_counts.is_valid().to_pylist()
    sizes = [
        [height, width] if has_mask else None
        for height, width, has_mask in zip(heights, widths, is_there, strict=True)
    ]
    return pa.array(sizes, kind)


def _finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity: null instead."""
    return value if value is not None and math.isfinite(value) else None
