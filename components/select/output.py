"""The rows that `select` writes: kept regions as tables, dropped ones for the quarantine."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.kernel.files import written_whole
from components.kernel.tables import Row, open_writer
from components.kernel.tally import quarantine_row
from components.select.regions import (
    MAX_SIDE_PX,
    Bools,
    Ints,
    Regions,
    clipped_box,
    own_values,
)
from components.select.settings import SelectSettings
from components.select.verdict import RULES, Verdict
from data_contracts.records import SCHEMA

PART_REGIONS = 4096
# What a region repeats of its record; never the record's regions, of which there may be thousands.
RECORD_COLUMNS = ["url", "caption", "width", "height", "clip_similarity_vitl14", "split", "subset"]


def region_table(regions: Regions, rows: Ints, record_ids: list[str]) -> pa.Table:
    """The chosen regions in the schema of `records`; `record_ids` is one a record."""
    record = regions.record[rows]
    names = [record_ids[number] for number in record.tolist()]
    box = clipped_box(regions.box[rows])
    source = regions.records.select(RECORD_COLUMNS).take(pa.array(record))
    mask_counts = own_values(regions, rows, "masks")
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
        "mask_fault": own_values(regions, rows, "mask_faults"),
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
    for rows in in_parts(verdict.dropped):
        table = region_table(regions, rows, record_ids)
        boxes = regions.box[rows].tolist()  # as the source gave them, not clipped
        for i, row, box in zip(rows.tolist(), table.to_pylist(), boxes, strict=True):
            row["box_norm"] = box
            rule = RULES[verdict.rule[i]]
            yield quarantine_row("select", row, rule.reason, rule.explain(regions, i, settings))


def in_parts(rows: Ints) -> Iterator[Ints]:
    """The numbers of some regions in parts, so that a table of them fits in memory."""
    for start in range(0, len(rows), PART_REGIONS):
        yield rows[start : start + PART_REGIONS]


class GroupWriter:
    """Writes kept regions to one file a group, each visible only when it is complete."""

    def __init__(self, records: Path) -> None:
        self._records = records
        self._path: Path | None = None
        self._writer: pq.ParquetWriter | None = None
        self._open = ExitStack()
        self.num_groups = 0

    def write(self, group: int, table: pa.Table) -> None:
        """Append rows to a group; groups come in order."""
        path = self._records / f"{group:05d}" / "part-00000.parquet"
        if path != self._path:
            self.close()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._path = path
            partial = self._open.enter_context(written_whole(path))
            self._writer = self._open.enter_context(open_writer(partial, SCHEMA))
            self.num_groups += 1
        assert self._writer is not None
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the open group."""
        self._open.close()
        self._writer = self._path = None


def _text(source: pa.RecordBatch, name: str) -> pa.Array:
    return pc.fill_null(source.column(name), "")


def _is_size(pixels: int | None) -> bool:
    """Whether a declared side can be one; a row with another is dropped, and kept as it is."""
    return pixels is not None and 0 < pixels <= MAX_SIDE_PX


def _rows_of(matrix: Any, kind: pa.DataType) -> pa.Array:
    """A matrix as an Arrow list a row."""
    offsets = pa.array(np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(matrix.ravel(), kind))


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
        [height, width] if has_mask and _is_size(height) and _is_size(width) else None
        for height, width, has_mask in zip(heights, widths, is_there, strict=True)
    ]
    return pa.array(sizes, kind)
