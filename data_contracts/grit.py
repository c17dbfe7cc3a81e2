"""`grit`: source records in GRIT's published layout, plus what our own sources add.

Offsets are character positions in `caption`, stored as floats; boxes are shares of the image's
width and height; see https://huggingface.co/datasets/zzliang/GRIT.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.engine.columns import as_bools
from data_contracts.engine.conform import conform, fits
from data_contracts.engine.reading import BATCH_ROWS, raw_batches, read_schema
from data_contracts.engine.rules import between, holds, present
from data_contracts.engine.tables import Columns

KEY = "id"
# Each region is [start, end, x1, y1, x2, y2, score].
REGIONS = pa.list_(pa.list_(pa.float64()))
REGION_WIDTH = 7
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("clip_similarity_vitb32", pa.float64()),
        pa.field("clip_similarity_vitl14", pa.float64()),
        pa.field("id", pa.int64()),
        pa.field("url", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("width", pa.int64()),
        pa.field("height", pa.int64()),
        pa.field("noun_chunks", REGIONS),
        pa.field("ref_exps", REGIONS),
    ]
)
# What GRIT does not have: masks parallel to `ref_exps` (COCO compressed RLE counts of an image of
# `height` x `width`), what was wrong with each of them (parallel too; null for nothing), the split,
# and which fault `sample_grit` put in (for tests, never for gates). Where each box comes from
# (parallel too) and of which point it was made is said by `import_parts` alone.
OPTIONAL = pa.schema(
    [
        pa.field("masks", pa.list_(pa.string())),
        pa.field("mask_faults", pa.list_(pa.string())),
        pa.field("split", pa.string()),
        pa.field("subset", pa.string()),
        pa.field("fault", pa.string()),
    ]
)
SAMPLE_SCHEMA = pa.schema([*SCHEMA, *OPTIONAL])
PARTS_SCHEMA = pa.schema(
    [
        *SAMPLE_SCHEMA,
        pa.field("box_sources", pa.list_(pa.string())),
        # The annotated point that a box was made of, as shares like boxes; null for other boxes.
        pa.field("points", pa.list_(pa.list_(pa.float64()))),
    ]
)


REQUIRED = ("id", "url", "caption", "width", "height", "ref_exps")  # without them nothing is left
UNREAD = ("key", "clip_similarity_vitb32", "noun_chunks", "fault")
READ_SCHEMA = pa.schema(
    [
        field if field.name != KEY else pa.field(KEY, pa.string())
        for field in PARTS_SCHEMA
        if field.name not in UNREAD
    ]
)


def schema_faults(schema: pa.Schema) -> list[str]:
    """What keeps a table from being read as GRIT: one message a column, none if it fits."""
    faults = [f"column '{name}' is missing" for name in REQUIRED if name not in schema.names]
    for field in PARTS_SCHEMA:
        how_often = schema.names.count(field.name)
        if how_often > 1:
            faults.append(f"column '{field.name}' comes {how_often} times")
        elif how_often:
            found = schema.field(field.name).type
            if not fits(found, field.type):
                faults.append(f"column '{field.name}' is {found}, not {field.type}")
    return faults


def batches(
    path: Path, names: Sequence[str] = tuple(READ_SCHEMA.names), batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """A file's records in `READ_SCHEMA`, as far as named, with each record's own flaw.

    Raises:
        TableError: the file is damaged, or would not fit in memory.
    """
    known = set(read_schema(path).names)
    schema = pa.schema([field for field in READ_SCHEMA if field.name in names])
    for batch in raw_batches(path, [name for name in names if name in known], batch_rows):
        yield conform(batch, schema)


KEY_SCOPE = "none"  # records that come twice are for `select` to drop
TOLERATED_ROWS = 5  # so many bad records say nothing of a table, however small it is
READ = ("id", "url", "caption", "width", "height", "ref_exps")
BULK = 0.95  # single bad records are for `select` to drop and to count
RULES = {
    "id_present": present("id", mostly=BULK),
    "url_present": present("url", mostly=BULK),
    "caption_present": present("caption", mostly=BULK),
    "width_positive": between("width", 1, mostly=BULK),
    "height_positive": between("height", 1, mostly=BULK),
    "regions_have_seven_numbers": holds("regions_are_whole", mostly=BULK),
}


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: whether every region has its seven numbers."""
    return {"regions_are_whole": _regions_are_whole(chunk["ref_exps"])}


def _regions_are_whole(column: pa.ChunkedArray) -> pa.Array:
    lists = column.combine_chunks()
    lengths = pc.list_value_length(pc.list_flatten(lists))
    is_wrong = as_bools(pc.not_equal(lengths, REGION_WIDTH))
    parents = pc.list_parent_indices(lists).filter(pa.array(is_wrong))
    return pc.invert(pc.is_in(pa.array(range(len(lists))), parents.cast(pa.int64())))
