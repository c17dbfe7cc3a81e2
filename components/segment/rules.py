"""Which masks are good enough: pure rules on arrays."""

from dataclasses import dataclass

import numpy as np

from components.segment.settings import MaskRules
from data_contracts.reasons import SegmentReason
from pixclip.masks import Box, Mask, box_mask, clip_box


@dataclass(frozen=True)
class MaskVerdict:
    """A mask inside its box's region, and why it is refused, if it is."""

    mask: Mask
    reason: str = ""
    detail: str = ""


def judge_mask(mask: Mask, box: Box, rules: MaskRules) -> MaskVerdict:
    """Clip a mask [H, W] to its box grown by the margin, and judge what is left."""
    height_px, width_px = mask.shape
    mask = mask & box_mask(grow_box(box, rules.box_margin_share), height_px, width_px)
    area_px = int(np.count_nonzero(mask))
    x1, y1, x2, y2 = clip_box(box, height_px, width_px)
    box_share = area_px / max((x2 - x1) * (y2 - y1), 1.0)
    image_share = area_px / mask.size
    if area_px == 0:
        return MaskVerdict(mask, SegmentReason.EMPTY_MASK, "no pixel of the mask is inside the box")
    if area_px < rules.min_area_px or box_share < rules.min_box_share:
        detail = (
            f"{area_px} px, {box_share:.1%} of the box; at least {rules.min_area_px} px "
            f"and {rules.min_box_share:.1%}"
        )
        return MaskVerdict(mask, SegmentReason.SMALL_MASK, detail)
    if image_share > rules.max_image_share:
        return MaskVerdict(mask, SegmentReason.WHOLE_IMAGE_MASK, f"{image_share:.1%} of the image")
    return MaskVerdict(mask)


def grow_box(box: Box, share: float) -> Box:
    """A box whose sides are moved out by a share of their length."""
    x1, y1, x2, y2 = box
    margin_x, margin_y = (x2 - x1) * share, (y2 - y1) * share
    return x1 - margin_x, y1 - margin_y, x2 + margin_x, y2 + margin_y
