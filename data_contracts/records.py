"""`records`: one row a region of the source, after the filters, split into groups."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.engine.columns import (
    BOX_TOLERANCE,
    MAX_PHRASE_WORDS,
    UNDECIDED,
    URL,
    as_bools,
    box_columns,
    fixed_lists,
    num_words,
)
from data_contracts.engine.mask_counts import read_counts
from data_contracts.engine.rules import between, holds, is_in, matches
from data_contracts.engine.tables import Columns
from pixclip.data.layout import SPLITS

KEY = "region_id"
SCHEMA = pa.schema(
    [
        pa.field("region_id", pa.string(), nullable=False),  # "<record_id>-<index of the box>"
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),  # http(s)://, s3:// or file://
        pa.field("image_caption", pa.string(), nullable=False),
        pa.field("phrase", pa.string(), nullable=False),  # what the source calls the region
        pa.field("box_norm", pa.list_(pa.float64()), nullable=False),  # xyxy in [0, 1]
        pa.field("score", pa.float64(), nullable=False),
        pa.field("clip_similarity", pa.float64()),  # ViT-L/14, as the source gives it
        pa.field("mask_counts", pa.string()),  # the source's own mask, COCO compressed RLE
        pa.field("mask_size", pa.list_(pa.int32())),  # [height, width] of that mask
        pa.field("mask_fault", pa.string()),  # what was wrong with it; without counts: unusable
        pa.field("box_source", pa.string()),  # image, points, published; null: as the source has it
        pa.field("point_norm", pa.list_(pa.float64())),  # x, y that the box was made of, in [0, 1]
        pa.field("declared_size", pa.list_(pa.int64())),  # [height, width], as the source says
        pa.field("split", pa.string(), nullable=False),  # "train", "benchmark" or "" (undecided)
        pa.field("subset", pa.string(), nullable=False),  # e.g. "held_out_objects", or ""
    ]
)

BUDGET = 0.02
RULES = {
    "region_id_of_record": holds("region_is_of_record"),
    "url_well_formed": matches("url", URL),
    "phrase_not_empty": between("phrase_words", 1, MAX_PHRASE_WORDS),
    "box_inside_image": between("box_outside", highest=BOX_TOLERANCE),
    "box_not_empty": between("box_shorter_side", above=0),
    "score_in_range": between("score", 0, 1),
    "clip_similarity_in_range": between("clip_similarity", -1, 1),
    "own_mask_whole": holds("own_mask_is_whole"),
    "split_known": is_in("split", UNDECIDED, *SPLITS),
}
PARSED, PARSED_FROM = ("own_mask_is_whole",), ("mask_counts",)


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: the box, the phrase, and whether the ids are coherent."""
    record_id = pc.replace_substring_regex(chunk["region_id"], r"-\d+$", "")
    return {
        **box_columns(fixed_lists(chunk["box_norm"], 4), 1.0, 1.0),
        "phrase_words": num_words(chunk["phrase"]),
        "region_is_of_record": as_bools(pc.equal(record_id, chunk["record_id"])),
    }


def parse(chunk: pa.Table) -> Columns:
    """Whether the source's own mask, if there is one, describes as many pixels as its size says."""
    has_mask = as_bools(pc.is_valid(chunk["mask_counts"]))
    has_size = as_bools(pc.is_valid(chunk["mask_size"]))
    size = fixed_lists(chunk["mask_size"], 2)
    is_whole = read_counts(chunk["mask_counts"]).num_pixels == size.prod(axis=1)
    return {"own_mask_is_whole": np.where(has_mask, is_whole, ~has_size)}
