"""`records`: one row a region of the source, after the filters, split into groups."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.candidates import MAX_PHRASE_WORDS, SPLITS
from data_contracts.columns import as_bools, box_columns, fixed_lists, num_words
from data_contracts.mask_counts import read_counts
from data_contracts.rules import named_suite
from data_contracts.tables import Columns

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

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
        pa.field("declared_size", pa.list_(pa.int64())),  # [height, width], as the source says
        pa.field("split", pa.string(), nullable=False),  # "train", "benchmark" or "" (undecided)
        pa.field("subset", pa.string(), nullable=False),  # e.g. "held_out_objects", or ""
    ]
)

BUDGET = 0.02
URL = r"^(?:https?|s3|file)://"


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: the box, the phrase, and whether ids and mask are coherent."""
    record_id = pc.replace_substring_regex(chunk["region_id"], r"-\d+$", "")
    return {
        **box_columns(fixed_lists(chunk["box_norm"], 4), 1.0, 1.0),
        "phrase_words": num_words(chunk["phrase"]),
        "region_is_of_record": as_bools(pc.equal(record_id, chunk["record_id"])),
        "own_mask_is_whole": own_mask_is_whole(chunk),
    }


def own_mask_is_whole(chunk: pa.Table) -> Any:
    """Whether the source's own mask, if there is one, describes as many pixels as its size says."""
    has_mask = as_bools(pc.is_valid(chunk["mask_counts"]))
    has_size = as_bools(pc.is_valid(chunk["mask_size"]))
    size = fixed_lists(chunk["mask_size"], 2)
    is_whole = read_counts(chunk["mask_counts"]).num_pixels == size.prod(axis=1)
    return np.where(has_mask, is_whole, ~has_size)


def rules() -> dict[str, Any]:
    """Every region has an address for its image, a phrase and a box inside the image."""
    from great_expectations import expectations as gxe

    return {
        "region_id_of_record": gxe.ExpectColumnValuesToBeInSet(
            column="region_is_of_record", value_set=[True]
        ),
        "url_well_formed": gxe.ExpectColumnValuesToMatchRegex(column="url", regex=URL),
        "phrase_not_empty": gxe.ExpectColumnValuesToBeBetween(
            column="phrase_words", min_value=1, max_value=MAX_PHRASE_WORDS
        ),
        "box_inside_image": gxe.ExpectColumnValuesToBeBetween(column="box_outside", max_value=1e-6),
        "box_not_empty": gxe.ExpectColumnValuesToBeBetween(
            column="box_shorter_side", min_value=0, strict_min=True
        ),
        "score_in_range": gxe.ExpectColumnValuesToBeBetween(
            column="score", min_value=0, max_value=1
        ),
        "clip_similarity_in_range": gxe.ExpectColumnValuesToBeBetween(
            column="clip_similarity", min_value=-1, max_value=1
        ),
        "own_mask_whole": gxe.ExpectColumnValuesToBeInSet(
            column="own_mask_is_whole", value_set=[True]
        ),
        "split_known": gxe.ExpectColumnValuesToBeInSet(column="split", value_set=SPLITS),
    }


def suite() -> "ExpectationSuite":
    """The contract's rules."""
    return named_suite("records", rules())
