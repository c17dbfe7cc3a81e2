"""What a segmenter is, and the simplest one; the others are imported when they are chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from components.segment.settings import SegmentSettings
from pixclip.masks import Box, Mask, box_mask


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


def build_segmenter(settings: SegmentSettings) -> Segmenter | None:
    """The segmenter that the settings choose, or None if rows need a mask of their own."""
    if settings.generator == "sam":
        from components.segment.sam import SamSegmenter

        return SamSegmenter(settings.sam)
    if settings.generator == "grabcut":
        from components.segment.grabcut import GrabCutSegmenter

        return GrabCutSegmenter(settings.grabcut)
    return BoxSegmenter() if settings.generator == "box" else None
