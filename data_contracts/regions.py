"""`regions`: one row a region with its mask."""

import numpy as np
import pyarrow as pa

from data_contracts import candidates
from data_contracts.engine.columns import MASK_SOURCE, Floats, fixed_lists, numbers
from data_contracts.engine.contract import Join
from data_contracts.engine.mask_counts import read_counts
from data_contracts.engine.rules import between, holds, matches
from data_contracts.engine.tables import Columns

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
# A predicted intersection over union; SAM's estimate is not clipped and may pass 1 a little.
MIN_MASK_SCORE, MAX_MASK_SCORE = -0.5, 1.5
BUDGET = 0.02
JOINS = (
    Join("region_among_candidates", "region_id", "candidates", "region_id"),
    Join("image_in_manifest", "image_sha256", "images", "sha256", where=("status", "ok")),
)
RULES = {
    **candidates.RULES,
    "mask_not_empty": between("mask_area_px", 1),
    "mask_inside_image": holds("mask_has_image_size"),
    "mask_counts_cover_image": holds("mask_covers_image"),
    "mask_area_matches_counts": holds("mask_area_is_true"),
    "mask_source_known": matches("mask_source", MASK_SOURCE),
    "mask_score_in_range": between("mask_score", MIN_MASK_SCORE, MAX_MASK_SCORE),
}
PARSED = ("mask_covers_image", "mask_area_is_true")
PARSED_FROM = ("mask_counts",)  # missing counts break the rules on both


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: the candidate's columns, and the mask's size against its image."""
    size = fixed_lists(chunk["mask_size"], 2)
    is_same = size == np.stack(_image_size(chunk), axis=1)
    return {**candidates.prepare(chunk), "mask_has_image_size": is_same.all(axis=1)}


def parse(chunk: pa.Table) -> Columns:
    """A mask's counts against its image and against its area."""
    facts = read_counts(chunk["mask_counts"])
    height, width = _image_size(chunk)
    return {
        "mask_covers_image": facts.num_pixels == height * width,
        "mask_area_is_true": facts.area_px == numbers(chunk, "mask_area_px"),
    }


def _image_size(chunk: pa.Table) -> tuple[Floats, Floats]:
    return numbers(chunk, "image_height_px"), numbers(chunk, "image_width_px")
