"""The mask that a row brought along from its source: untrusted until checked."""

from components.kernel.tables import Row
from data_contracts.reasons import SegmentReason
from pixclip.masks import Mask, Rle, decode_mask


class MaskError(ValueError):
    """A row's own mask cannot be used; `reason` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def has_unusable_mask(row: Row) -> bool:
    """Whether the source brought a mask of which nothing could be read."""
    return row["mask_counts"] is None and row["mask_fault"] is not None


def record_mask(row: Row) -> Mask:
    """The row's own mask [H, W].

    Raises:
        MaskError: `no_mask`, `own_mask_unusable` (the importing step could not read it),
            `mask_size_mismatch` (it belongs to an image of another size) or `mask_damaged`.
    """
    if has_unusable_mask(row):
        detail = f"{row['mask_fault']}; segment.replace_unusable_masks lets the fallback make one"
        raise MaskError(SegmentReason.OWN_MASK_UNUSABLE, detail)
    if row["mask_counts"] is None:
        raise MaskError(
            SegmentReason.NO_MASK, "the record brought no mask and there is no fallback source"
        )
    height_px, width_px = row["image_height_px"], row["image_width_px"]
    if row["mask_size"] != [height_px, width_px]:
        detail = f"mask {row['mask_size']}, image {[height_px, width_px]}"
        raise MaskError(SegmentReason.MASK_SIZE_MISMATCH, detail)
    try:
        return decode_mask(Rle(height_px, width_px, row["mask_counts"]))
    except ValueError as error:
        raise MaskError(SegmentReason.MASK_DAMAGED, str(error)) from None
