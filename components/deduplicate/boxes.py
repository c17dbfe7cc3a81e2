"""Bring a region to the pixels of the image that really arrived."""

from dataclasses import dataclass

from components.kernel.tables import Row
from data_contracts.reasons import DeduplicateReason
from pixclip.masks import Box, clip_box


@dataclass(frozen=True)
class PixelBox:
    """A box in pixels of the upright image, or the reason why there is none."""

    box_xyxy: Box = (0.0, 0.0, 0.0, 0.0)
    reason: str = ""
    detail: str = ""


def to_pixels(row: Row, width_px: int, height_px: int, min_box_side_px: float) -> PixelBox:
    """The clipped pixel box of a record's region.

    A source mask of another size than the upright image is refused, never scaled.
    """
    if row["mask_counts"] is not None and row["mask_size"] != [height_px, width_px]:
        detail = f"mask {row['mask_size']}, image {[height_px, width_px]} (height, width)"
        return PixelBox(reason=DeduplicateReason.MASK_SIZE_MISMATCH, detail=detail)
    x1, y1, x2, y2 = row["box_norm"]
    scaled = (x1 * width_px, y1 * height_px, x2 * width_px, y2 * height_px)
    box = clip_box(scaled, height_px, width_px)
    short_px = min(box[2] - box[0], box[3] - box[1])
    if not short_px >= min_box_side_px:  # so that NaN fails too
        detail = f"short side {short_px:.1f} pixels, below {min_box_side_px:g}"
        return PixelBox(reason=DeduplicateReason.TINY_BOX, detail=detail)
    return PixelBox(box)
