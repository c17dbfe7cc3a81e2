"""`images`: WebDataset shards and a manifest with one row for every URL that was tried."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.engine.columns import PHASH, SHA256, as_bools, numbers
from data_contracts.engine.rules import between, holds, is_in, matches
from data_contracts.engine.tables import Columns

KEY = "url"
SCHEMA = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # "ok" or "failed"
        pa.field("reason", pa.string(), nullable=False),  # "" if ok, else a short code
        pa.field("detail", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),  # of the downloaded bytes; the key in the shard
        pa.field("shard", pa.string()),  # tar file beside the manifest
        pa.field("num_bytes", pa.int64()),
        pa.field("width_px", pa.int32()),  # upright, after EXIF orientation
        pa.field("height_px", pa.int32()),
        pa.field("phash", pa.string()),  # 64-bit perceptual hash, 16 hex digits
        pa.field("stored_width", pa.int32()),  # in pixels, as the file declares them
        pa.field("stored_height", pa.int32()),
        pa.field("orientation", pa.int8()),  # the EXIF orientation that was applied; 1 is none
    ]
)

SIDEWAYS_FROM = 5  # EXIF orientations 5 to 8 swap width and height
KEY_SCOPE = "file"  # two groups may have the same URL
BUDGET = 0.0  # the manifest is our own bookkeeping: a wrong row is a bug, not bad data
OF_AN_IMAGE = (
    "sha256",
    "shard",
    "num_bytes",
    "width_px",
    "height_px",
    "phash",
    "stored_width",
    "stored_height",
    "orientation",
)
POSITIVE = ("num_bytes", "width_px", "height_px", "stored_width", "stored_height")
RULES = {
    "status_known": is_in("status", "ok", "failed"),
    "failed_with_a_reason_ok_without": holds("reason_fits"),
    "ok_with_an_image_failed_without": holds("image_fits"),
    "sha256_well_formed": matches("sha256", SHA256),
    "phash_well_formed": matches("phash", PHASH),
    "shard_beside_manifest": matches("shard", r"^[\w-]+\.tar$"),
    "orientation_known": between("orientation", 1, 8),
    "upright_size_is_the_stored_one_turned": holds("turned_fits"),
    **{f"{name}_positive": between(name, 1) for name in POSITIVE},
}


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: whether a row's columns tell the same story as its status."""
    is_ok = as_bools(pc.equal(chunk["status"], "ok"))
    has_reason = as_bools(pc.not_equal(chunk["reason"], ""))
    present = np.sum([as_bools(pc.is_valid(chunk[name])) for name in OF_AN_IMAGE], axis=0)
    return {
        "reason_fits": is_ok != has_reason,
        "image_fits": present == np.where(is_ok, len(OF_AN_IMAGE), 0),
        "turned_fits": _turned_fits(chunk),
    }


def _turned_fits(chunk: pa.Table) -> npt.NDArray[np.bool_]:
    """Whether the upright size is the stored one, with the sides swapped as the orientation says.

    A failed URL has neither; half of the numbers is another rule's business.
    """
    width, height, stored_width, stored_height, orientation = (
        numbers(chunk, name)
        for name in ("width_px", "height_px", "stored_width", "stored_height", "orientation")
    )
    is_sideways = orientation >= SIDEWAYS_FROM
    as_turned = np.where(is_sideways, stored_height, stored_width) == width
    as_turned &= np.where(is_sideways, stored_width, stored_height) == height
    is_known = ~np.isnan(width + height + stored_width + stored_height + orientation)
    fits: npt.NDArray[np.bool_] = as_turned | ~is_known
    return fits
