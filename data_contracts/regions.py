"""`regions`: one row a region with its mask."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data_contracts import candidates
from data_contracts.columns import fixed_lists, numbers
from data_contracts.mask_counts import read_counts
from data_contracts.rules import Join, named_suite
from data_contracts.tables import Columns

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

KEY = "region_id"
SCHEMA = pa.schema(
    [
        *(field for field in candidates.SCHEMA if not field.name.startswith("mask_")),
        pa.field("mask_counts", pa.string(), nullable=False),  # COCO compressed RLE
        pa.field("mask_size", pa.list_(pa.int32()), nullable=False),  # [height, width]
        pa.field("mask_area_px", pa.int64(), nullable=False),
        pa.field("mask_source", pa.string(), nullable=False),  # record, sam:<model>, grabcut, box
        pa.field("mask_fault", pa.string()),  # what was wrong with the record's own mask, if it was
        pa.field("mask_score", pa.float64()),  # the segmenter's own quality estimate, if any
    ]
)
MASK_SOURCE = r"^(?:record|grabcut|box|sam:\S+)$"
# A predicted intersection over union; SAM's estimate is not clipped and may pass 1 a little.
MIN_MASK_SCORE, MAX_MASK_SCORE = -0.5, 1.5
BUDGET = 0.02
JOINS = (
    Join("region_among_candidates", "region_id", "candidates", "region_id"),
    Join("image_in_manifest", "image_sha256", "images", "sha256", where=("status", "ok")),
)


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: the candidate's columns, and the mask against its image."""
    return {**candidates.prepare(chunk), **mask_columns(chunk)}


def mask_columns(chunk: pa.Table) -> Columns:
    """A mask's size and counts against the image and against each other."""
    facts = read_counts(chunk["mask_counts"])
    size = fixed_lists(chunk["mask_size"], 2)
    image = np.stack([numbers(chunk, "image_height_px"), numbers(chunk, "image_width_px")], axis=1)
    return {
        "mask_has_image_size": (size == image).all(axis=1),
        "mask_covers_image": facts.num_pixels == image[:, 0] * image[:, 1],
        "mask_area_is_true": facts.area_px == numbers(chunk, "mask_area_px"),
    }


def rules() -> dict[str, Any]:
    """Every region has a mask that is not empty and belongs to its image."""
    from great_expectations import expectations as gxe

    true = {"value_set": [True]}
    return {
        **candidates.rules(),
        "mask_not_empty": gxe.ExpectColumnValuesToBeBetween(column="mask_area_px", min_value=1),
        "mask_inside_image": gxe.ExpectColumnValuesToBeInSet(column="mask_has_image_size", **true),
        "mask_counts_cover_image": gxe.ExpectColumnValuesToBeInSet(
            column="mask_covers_image", **true
        ),
        "mask_area_matches_counts": gxe.ExpectColumnValuesToBeInSet(
            column="mask_area_is_true", **true
        ),
        "mask_source_known": gxe.ExpectColumnValuesToMatchRegex(
            column="mask_source", regex=MASK_SOURCE
        ),
        "mask_score_in_range": gxe.ExpectColumnValuesToBeBetween(
            column="mask_score", min_value=MIN_MASK_SCORE, max_value=MAX_MASK_SCORE
        ),
    }


def suite() -> "ExpectationSuite":
    """The contract's rules."""
    return named_suite("regions", rules())
