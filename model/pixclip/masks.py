"""Region masks: COCO run-length encoding, boxes and areas.

A mask is a boolean array [H, W]. Its stored form is COCO's compressed RLE
(https://github.com/cocodataset/cocoapi): `size` = [H, W] and `counts`, an ASCII string.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

MAX_NUMBER_CHARS = 6  # of a number in the counts: up to 2**29, more pixels than images have
Mask = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels; x2 and y2 are exclusive


@dataclass(frozen=True)
class Rle:
    """A mask in COCO's compressed run-length encoding."""

    height_px: int
    width_px: int
    counts: str

    def as_coco(self) -> dict[str, object]:
        """The form pycocotools and COCO JSON files use."""
        return {"size": [self.height_px, self.width_px], "counts": self.counts}


def encode_mask(mask: Mask) -> Rle:
    """Run-length encode a mask [H, W]."""
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return Rle(mask.shape[0], mask.shape[1], encoded["counts"].decode("ascii"))


def decode_mask(rle: Rle) -> Mask:
    """The mask [H, W] of a run-length encoding.

    Raises:
        ValueError: the counts do not describe exactly `height_px * width_px` pixels.
    """
    if rle_num_pixels(rle.counts) != rle.height_px * rle.width_px:
        raise ValueError(
            f"mask counts do not cover {rle.height_px} x {rle.width_px} pixels; "
            "the mask belongs to an image of another size or is damaged"
        )
    return np.asarray(coco.decode(rle.as_coco()), dtype=bool)


def rle_num_pixels(counts: str) -> int:
    """Number of pixels that compressed counts describe, read from the string alone.

    Untrusted counts must be checked before pycocotools decodes them: it trusts them and
    writes past its buffer.

    Raises:
        ValueError: the string is not COCO compressed counts.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for char in counts:
        code = ord(char) - 48
        if not 0 <= code < 64:
            raise ValueError(f"character {char!r} does not occur in COCO mask counts")
        if shift == 5 * MAX_NUMBER_CHARS:
            raise ValueError("the COCO mask counts hold a number that is too long")
        value |= (code & 0x1F) << shift
        shift += 5
        if not code & 0x20:
            if code & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    if shift or any(run < 0 for run in runs):
        raise ValueError("the COCO mask counts end in the middle of a number or hold negative runs")
    return sum(runs)


def mask_box(mask: Mask) -> Box:
    """The tightest box around a mask [H, W].

    Raises:
        ValueError: the mask is empty.
    """
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        raise ValueError("an empty mask has no box")
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def box_mask(box: Box, height_px: int, width_px: int) -> Mask:
    """The mask [H, W] that fills a box, clipped to the image."""
    x1, y1, x2, y2 = clip_box(box, height_px, width_px)
    mask = np.zeros((height_px, width_px), dtype=bool)
    mask[int(np.floor(y1)) : int(np.ceil(y2)), int(np.floor(x1)) : int(np.ceil(x2))] = True
    return mask


def clip_box(box: Box, height_px: int, width_px: int) -> Box:
    """The part of a box inside the image."""
    x1, y1, x2, y2 = box
    return (
        min(max(x1, 0.0), width_px),
        min(max(y1, 0.0), height_px),
        min(max(x2, 0.0), width_px),
        min(max(y2, 0.0), height_px),
    )


def mask_iou(first: Mask, second: Mask) -> float:
    """Intersection over union of two masks [H, W]; 0 if both are empty."""
    union = np.logical_or(first, second).sum()
    return float(np.logical_and(first, second).sum() / union) if union else 0.0
