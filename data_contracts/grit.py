"""`grit`: source records in GRIT's published layout, plus what our own sources add.

Offsets are character positions in `caption`, stored as floats; boxes are shares of the image's
width and height; see https://huggingface.co/datasets/zzliang/GRIT.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from data_contracts.columns import as_bools
from data_contracts.rules import named_suite
from data_contracts.tables import Columns

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

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
# and which fault `sample_grit` put in (for tests, never for gates).
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


def schema_faults(schema: pa.Schema) -> list[str]:
    """What keeps a table from being read as GRIT: one message a column, none if it fits."""
    faults = [f"column '{name}' is missing" for name in SCHEMA.names if name not in schema.names]
    for field in SAMPLE_SCHEMA:
        if field.name in schema.names:
            found = schema.field(field.name).type
            if not _fits(found, field.type):
                faults.append(f"column '{field.name}' is {found}, not {field.type}")
    return faults


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column can be read as the wanted type without a change of meaning."""
    if kinds.is_null(found):  # how pandas writes a column without any value
        return True
    if kinds.is_list(wanted):
        return _is_any_list(found) and _fits(found.value_type, wanted.value_type)
    accepts: Callable[[pa.DataType], bool] = {
        pa.string(): _is_text,
        pa.int64(): kinds.is_integer,
        pa.float64(): _is_number,
    }[wanted]
    return bool(accepts(found))


def _is_any_list(found: pa.DataType) -> bool:
    return bool(
        kinds.is_list(found) or kinds.is_large_list(found) or kinds.is_fixed_size_list(found)
    )


def _is_text(found: pa.DataType) -> bool:
    return bool(
        kinds.is_string(found)
        or kinds.is_large_string(found)
        or (kinds.is_dictionary(found) and _is_text(found.value_type))
    )


def _is_number(found: pa.DataType) -> bool:
    return bool(kinds.is_floating(found) or kinds.is_integer(found))


KEY_SCOPE = "none"  # records that come twice are for `select` to drop
READ = ("id", "url", "caption", "width", "height", "ref_exps")


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: whether every region has its seven numbers."""
    return {"regions_are_whole": _regions_are_whole(chunk["ref_exps"])}


def _regions_are_whole(column: pa.ChunkedArray) -> pa.Array:
    lists = column.combine_chunks()
    if kinds.is_null(lists.type):
        return pa.array([True] * len(lists))
    lengths = pc.list_value_length(pc.list_flatten(lists))
    is_wrong = as_bools(pc.not_equal(lengths, REGION_WIDTH))
    parents = pc.list_parent_indices(lists).filter(pa.array(is_wrong))
    return pc.invert(pc.is_in(pa.array(range(len(lists))), parents.cast(pa.int64())))


def suite() -> "ExpectationSuite":
    """The table is GRIT in its bulk; single bad records are for `select` to drop and to count."""
    from great_expectations import expectations as gxe

    return named_suite(
        "grit",
        {
            "url_present": gxe.ExpectColumnValuesToNotBeNull(column="url", mostly=0.95),
            "caption_present": gxe.ExpectColumnValuesToNotBeNull(column="caption", mostly=0.95),
            "width_positive": gxe.ExpectColumnValuesToBeBetween(
                column="width", min_value=1, mostly=0.95
            ),
            "height_positive": gxe.ExpectColumnValuesToBeBetween(
                column="height", min_value=1, mostly=0.95
            ),
            "regions_have_seven_numbers": gxe.ExpectColumnValuesToBeInSet(
                column="regions_are_whole", value_set=[True], mostly=0.95
            ),
        },
    )
