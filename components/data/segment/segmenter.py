"""What a segmenter is, the simplest one, and which masks are good enough.

The other segmenters are imported when they are chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from components.data.segment.settings import MaskRules
from data_contracts.reasons import SegmentReason
from pixclip.masks import Box, Mask, box_mask, clip_box


@dataclass(frozen=True)
class Prompt:
    """An upright RGB image and the boxes of its regions, in its pixels."""

    image: Image.Image
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class MaskResult:
    """A mask [H, W] of the whole image and the segmenter's own estimate of its quality."""

    mask: Mask
    score: float | None = None


class Segmenter(Protocol):
    """Makes one mask for each box of each image."""

    source: str  # what the rows say of the mask's origin
    images_per_batch: int  # prompts that one call takes
    num_threads: int  # calls that may run at the same time

    def segment(self, prompts: Sequence[Prompt]) -> list[list[MaskResult]]:
        """For each prompt, a mask for each of its boxes in order."""


class BoxSegmenter:
    """The box itself as a mask."""

    source, images_per_batch, num_threads = "box", 1, 1

    def segment(self, prompts: Sequence[Prompt]) -> list[list[MaskResult]]:
        """Filled boxes."""
        return [
            [MaskResult(box_mask(box, p.image.height, p.image.width)) for box in p.boxes]
            for p in prompts
        ]


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
