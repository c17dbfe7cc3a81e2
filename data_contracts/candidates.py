"""`candidates`: region rows whose image is there and is the only one of its kind."""

import pyarrow as pa

from data_contracts.engine.columns import (
    BOX_TOLERANCE,
    MAX_PHRASE_WORDS,
    PHASH,
    SHA256,
    UNDECIDED,
    box_columns,
    fixed_lists,
    num_words,
    numbers,
)
from data_contracts.engine.contract import Join
from data_contracts.engine.rules import between, is_in, matches
from data_contracts.engine.tables import Columns
from pixclip.data.layout import SPLITS

KEY = "region_id"
# Values of `box_source`: the whole object, and the beginning of those of a detector's boxes.
OBJECT, DETECTED = "object", "detector:"
SCHEMA = pa.schema(
    [
        pa.field("region_id", pa.string(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("image_caption", pa.string(), nullable=False),
        pa.field("phrase", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("image_sha256", pa.string(), nullable=False),
        pa.field("image_shard", pa.string(), nullable=False),  # tar in the group's image folder
        pa.field("image_width_px", pa.int32(), nullable=False),
        pa.field("image_height_px", pa.int32(), nullable=False),
        pa.field("image_phash", pa.string(), nullable=False),
        pa.field("box_xyxy", pa.list_(pa.float64()), nullable=False),  # pixels, clipped
        pa.field("mask_counts", pa.string()),  # the source's own mask, if it brought one
        pa.field("mask_size", pa.list_(pa.int32())),
        pa.field("mask_fault", pa.string()),  # what was wrong with it; without counts: unusable
        pa.field("box_source", pa.string()),  # whose box it is: docs/fgpart.md; null: the source's
        pa.field("point_xy", pa.list_(pa.float64())),  # annotated; box_source points; pixels
    ]
)

BUDGET = 0.02
JOINS = (
    Join("region_among_records", "region_id", "records", "region_id"),
    Join("image_in_manifest", "image_sha256", "images", "sha256", where=("status", "ok")),
)
RULES = {
    "region_id_well_formed": matches("region_id", r"^-?\w+-\d{2,}$"),
    "image_sha256_well_formed": matches("image_sha256", SHA256),
    "image_phash_well_formed": matches("image_phash", PHASH),
    "image_not_empty": between("image_width_px", 1),
    "box_inside_image": between("box_outside", highest=BOX_TOLERANCE),
    "box_not_empty": between("box_shorter_side", above=0),
    "phrase_not_empty": between("phrase_words", 1, MAX_PHRASE_WORDS),
    "score_in_range": between("score", 0, 1),
    "split_known": is_in("split", UNDECIDED, *SPLITS),
}


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: the box against its image, and the phrase."""
    boxes = fixed_lists(chunk["box_xyxy"], 4)
    width, height = numbers(chunk, "image_width_px"), numbers(chunk, "image_height_px")
    return {
        **box_columns(boxes, width, height),
        "phrase_words": num_words(chunk["phrase"]),
    }
