"""Region masks: COCO run-length encoding, boxes and areas.

A mask is a boolean array [H, W]. Its stored form is COCO's compressed RLE
(https://github.com/cocodataset/cocoapi): `size` = [H, W] and `counts`, an ASCII string.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

MAX_NUMBER_CHARS = 6  # of a number in the counts: up to 2**29, more pixels than images have
MAX_OUTLINE_PX = 2_000_000  # pycocotools takes some 50 bytes a pixel of a polygon's outline
Mask = npt.NDArray[np.bool_]
SoftMask = npt.NDArray[np.float32]  # how much of a pixel belongs to a region, from 0 to 1
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
    _require_size(rle_num_pixels(rle.counts), rle)
    decoded: Mask = coco.decode(rle.as_coco()).view(np.bool_)  # bytes 0 and 1
    return decoded


def rle_num_pixels(counts: str) -> int:
    """Number of pixels that compressed counts describe, read from the string alone.

    Untrusted counts must be checked before pycocotools decodes them: it trusts them and
    writes past its buffer.

    Raises:
        ValueError: the string is not COCO compressed counts.
    """
    return int(_run_lengths(counts).sum())


def _run_lengths(counts: str) -> npt.NDArray[np.int64]:
    """The lengths of the runs, by turns of false and true pixels, column after column."""
    codes = np.frombuffer(counts.encode("utf-8"), dtype=np.uint8).astype(np.int64) - 48
    if ((codes < 0) | (codes >= 64)).any():
        strange = next(char for char in counts if not 0 <= ord(char) - 48 < 64)
        raise ValueError(f"character {strange!r} does not occur in COCO mask counts")
    # A number's last character lacks the sixth bit; the fifth bit is its sign, as in LEB128.
    ends = np.flatnonzero(codes & 0x20 == 0)
    bounds = np.concatenate([[-1], ends, [len(codes) - 1]])
    if np.diff(bounds).max() > MAX_NUMBER_CHARS:
        raise ValueError("the COCO mask counts hold a number that is too long")
    starts = bounds[:-2] + 1
    shifts = 5 * (np.arange(bounds[-2] + 1) - np.repeat(starts, ends - starts + 1))
    parts = (codes[: len(shifts)] & 0x1F) << shifts
    lengths = np.add.reduceat(parts, starts) if len(starts) else parts
    lengths -= (codes[ends] >> 4) << (5 * (ends - starts + 1))
    # From the fourth on, a number is the difference to the one two places before.
    for same in (lengths[1::2], lengths[2::2]):
        np.cumsum(same, out=same)
    if bounds[-2] < bounds[-1] or (lengths < 0).any():
        raise ValueError("the COCO mask counts end in the middle of a number or hold negative runs")
    return np.asarray(lengths)


@dataclass(frozen=True)
class Runs:
    """The true pixels of a mask as stretches of its columns, laid end to end: [starts, stops)."""

    height_px: int
    width_px: int
    starts: npt.NDArray[np.int64]  # ascending
    stops: npt.NDArray[np.int64]

    def __bool__(self) -> bool:
        return len(self.starts) > 0

    def box(self) -> tuple[int, int, int, int]:
        """The tightest box, as `mask_box`; of no empty mask."""
        height = self.height_px
        first_column, last_column = self.starts[0] // height, (self.stops[-1] - 1) // height
        tops, bottoms = self.starts % height, (self.stops - 1) % height
        top, bottom = int(tops.min()), int(bottoms.max()) + 1
        if (self.starts // height != (self.stops - 1) // height).any():
            top, bottom = 0, height  # a stretch that goes on at the top of the next column
        return int(first_column), top, int(last_column) + 1, bottom

    def inside(self, box: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
        """The bytes 0 and 1 [width, height] of `box()`, column after column."""
        x1, y1, x2, y2 = box
        bounds = np.zeros(2 * len(self.starts) + 2, dtype=np.int64)
        bounds[1:-1:2], bounds[2:-1:2] = self.starts, self.stops
        bounds[1:-1] -= x1 * self.height_px
        bounds[-1] = (x2 - x1) * self.height_px
        is_inside = (np.arange(len(bounds) - 1) % 2).astype(np.uint8)
        columns = np.repeat(is_inside, np.diff(bounds)).reshape(-1, self.height_px)
        return columns[:, y1:y2]


def read_runs(rle: Rle) -> Runs:
    """The runs of an encoding, which are all that a mask's box and areas need.

    Raises:
        ValueError: as `decode_mask`.
    """
    bounds = np.cumsum(_run_lengths(rle.counts))
    _require_size(int(bounds[-1]) if len(bounds) else 0, rle)
    pairs = bounds[: len(bounds) // 2 * 2].reshape(-1, 2)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    return Runs(rle.height_px, rle.width_px, pairs[:, 0], pairs[:, 1])


def _require_size(num_pixels: int, rle: Rle) -> None:
    if num_pixels != rle.height_px * rle.width_px:
        raise ValueError(
            f"mask counts do not cover {rle.height_px} x {rle.width_px} pixels; "
            "the mask belongs to an image of another size or is damaged"
        )


def mask_box(mask: Mask | SoftMask) -> Box:
    """The tightest box around a mask [H, W].

    Raises:
        ValueError: the mask is empty.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(columns):
        raise ValueError("an empty mask has no box")
    rows = np.flatnonzero(mask[:, columns[0] : columns[-1] + 1].any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def box_mask(box: Box, height_px: int, width_px: int) -> Mask:
    """The mask [H, W] that fills a box, clipped to the image."""
    x1, y1, x2, y2 = clip_box(box, height_px, width_px)
    mask = np.zeros((height_px, width_px), dtype=bool)
    mask[int(np.floor(y1)) : int(np.ceil(y2)), int(np.floor(x1)) : int(np.ceil(x2))] = True
    return mask


def encode_box(box: Box, height_px: int, width_px: int) -> Rle:
    """The encoding of `box_mask`, without its pixels."""
    x1, y1, x2, y2 = clip_box(box, height_px, width_px)
    left, top = np.floor((x1, y1))
    right, bottom = np.ceil((x2, y2))
    sides = np.array([[left, top, right - left, bottom - top]], dtype=np.float64)
    (encoded,) = coco.frPyObjects(sides, height_px, width_px)
    return Rle(height_px, width_px, encoded["counts"].decode("ascii"))


def outline_px(points: Sequence[tuple[float, float]]) -> float:
    """The steps that pycocotools takes along a polygon x, y, which it closes itself."""
    return sum(
        1 + max(abs(x - points[number - 1][0]), abs(y - points[number - 1][1]))
        for number, (x, y) in enumerate(points)
    )


def turn_mask(mask: Mask, orientation: int) -> Mask:
    """A mask [H, W] of stored pixels as the mask of the upright image; EXIF orientation 1 to 8."""
    turned = mask.T if orientation >= 5 else mask
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    return turned


def turn_box(box: Box, orientation: int) -> Box:
    """A box in shares of the stored width and height, in shares of the upright image's."""
    x1, y1, x2, y2 = (box[1], box[0], box[3], box[2]) if orientation >= 5 else box
    if orientation in (2, 3, 6, 7):
        x1, x2 = 1 - x2, 1 - x1
    if orientation in (3, 4, 7, 8):
        y1, y2 = 1 - y2, 1 - y1
    return x1, y1, x2, y2


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
