"""`pixclip select`: from source records to region rows in groups.

Reads GRIT Parquet by pieces of a row group, so that 20 M records fit in bounded memory, and gives
every region that is dropped one reason.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core.counts import quarantine_row, region_counts, write_quarantine
from components.core.errors import GateError
from components.core.files import written_whole
from components.core.progress import progress
from components.core.step import In, Metrics, Out, step
from components.core.tables import Row, open_writer, part_name
from components.data.select.regions import (
    MAX_SIDE_PX,
    Bools,
    Ints,
    Regions,
    clipped_box,
    count_records,
    flatten_regions,
    lengths,
    own_points,
    own_values,
    read_records,
    require_grit,
)
from components.data.select.settings import SelectSettings
from components.data.select.verdict import RULES, Verdict, find_repeats, judge
from data_contracts.records import SCHEMA


@dataclass
class Counts:
    """What was met so far."""

    records: int = 0
    records_without_regions: int = 0
    regions: int = 0
    kept: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


@step(image="data", version=3)
def select(grit: In, records: Out, quarantine: Out, settings: SelectSettings) -> Metrics:
    """Keep the regions that are worth downloading, in groups; say why the others are not."""
    paths = require_grit(grit)
    counts, writer = Counts(), GroupWriter(records)
    records.mkdir(parents=True, exist_ok=True)
    write_quarantine(quarantine, sift(paths, writer, counts, settings))
    writer.close()
    if not counts.kept:
        raise GateError(
            f"select kept none of {counts.regions} regions in {counts.records} records",
            counts.reasons,
            "Look at the source, or loosen the limits under `select` in the params file."
            if counts.regions
            else "No record of the source has a region (`ref_exps`).",
        )
    return region_counts(
        counts.regions,
        counts.kept,
        counts.reasons,
        records_in=counts.records,
        records_without_regions=counts.records_without_regions,
        groups=writer.num_groups,
    )


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
        path = self._records / f"{group:05d}" / part_name(0)
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


def sift(
    paths: Sequence[Path], writer: GroupWriter, counts: Counts, settings: SelectSettings
) -> Iterator[Row]:
    """Write the kept regions on the way and give the dropped ones, batch by batch."""
    history = find_repeats(paths)
    with progress("select", count_records(paths), unit="record") as bar:
        for batch in read_records(paths, settings.records_per_group):
            regions = flatten_regions(batch.rows)
            verdict = judge(regions, history, settings)
            record_ids = name_records(regions, verdict.has_unique_id, batch.first_record)
            kept = verdict.kept
            for rows in in_parts(kept):
                writer.write(batch.group, region_table(regions, rows, record_ids))
            counts.records += batch.rows.num_rows
            counts.records_without_regions += int(
                (lengths(batch.rows.column("ref_exps")) == 0).sum()
            )
            counts.regions += len(regions)
            counts.kept += len(kept)
            counts.reasons.update(RULES[number].reason for number in verdict.rule if number >= 0)
            yield from dropped_rows(regions, verdict, record_ids, settings)
            bar.update(batch.rows.num_rows)


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
        "box_source": own_values(regions, rows, "box_sources"),
        "point_norm": own_points(regions, rows),
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
