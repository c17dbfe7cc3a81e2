"""`candidates`: region rows whose image is there and is the only one of its kind."""

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from data_contracts.columns import box_columns, fixed_lists, num_words, numbers
from data_contracts.rules import Join, named_suite
from data_contracts.tables import Columns

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

KEY = "region_id"
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
    ]
)

BUDGET = 0.02
JOINS = (
    Join("region_among_records", "region_id", "records", "region_id"),
    Join("image_in_manifest", "image_sha256", "images", "sha256", where=("status", "ok")),
)
SHA256, PHASH = r"^[0-9a-f]{64}$", r"^[0-9a-f]{16}$"
SPLITS = ["", "train", "val", "benchmark"]
MAX_PHRASE_WORDS = 60


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: the box against its image, and the phrase."""
    boxes = fixed_lists(chunk["box_xyxy"], 4)
    width, height = numbers(chunk, "image_width_px"), numbers(chunk, "image_height_px")
    return {
        **box_columns(boxes, width, height),
        "phrase_words": num_words(chunk["phrase"]),
    }


def rules() -> dict[str, Any]:
    """Every region has a phrase and a box inside an image that is there."""
    from great_expectations import expectations as gxe

    return {
        "region_id_well_formed": gxe.ExpectColumnValuesToMatchRegex(
            column="region_id", regex=r"^-?\w+-\d{2,}$"
        ),
        "image_sha256_well_formed": gxe.ExpectColumnValuesToMatchRegex(
            column="image_sha256", regex=SHA256
        ),
        "image_phash_well_formed": gxe.ExpectColumnValuesToMatchRegex(
            column="image_phash", regex=PHASH
        ),
        "image_not_empty": gxe.ExpectColumnValuesToBeBetween(column="image_width_px", min_value=1),
        "box_inside_image": gxe.ExpectColumnValuesToBeBetween(column="box_outside", max_value=1e-6),
        "box_not_empty": gxe.ExpectColumnValuesToBeBetween(
            column="box_shorter_side", min_value=0, strict_min=True
        ),
        "phrase_not_empty": gxe.ExpectColumnValuesToBeBetween(
            column="phrase_words", min_value=1, max_value=MAX_PHRASE_WORDS
        ),
        "score_in_range": gxe.ExpectColumnValuesToBeBetween(
            column="score", min_value=0, max_value=1
        ),
        "split_known": gxe.ExpectColumnValuesToBeInSet(column="split", value_set=SPLITS),
    }


def suite() -> "ExpectationSuite":
    """The contract's rules."""
    return named_suite("candidates", rules())
