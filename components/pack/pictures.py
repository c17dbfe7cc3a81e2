"""Pictures of the report page: small JPEGs as data URLs, masks as SVG outlines over them."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pixclip.images import open_image
from pixclip.masks import Mask, Rle, decode_mask, mask_box

JPEG_QUALITY = 80
THIN_SHARE, NUMBER_GAP_SHARE = 0.045, 0.03  # of the picture's width
SIMPLIFY_PX = 0.6  # how far an outline may leave the mask's edge, in pixels of the small picture


@dataclass(frozen=True)
class Picture:
    """A shrunken image."""

    data_url: str
    width_px: int
    height_px: int
    scale: float  # its pixels for one pixel of the original


@dataclass(frozen=True)
class Outline:
    """A mask's outline as an SVG path, and a place for its number."""

    path: str
    x: float
    y: float


def shrink(jpeg: bytes, max_side_px: int) -> Picture:
    """A picture no larger than `max_side_px` on its longer side."""
    image = open_image(jpeg)
    original_width = image.width
    image.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True, progressive=True)
    text = base64.b64encode(buffer.getvalue()).decode()
    return Picture(
        f"data:image/jpeg;base64,{text}", image.width, image.height, image.width / original_width
    )


def outline(mask: Mapping[str, Any], picture: Picture) -> Outline:
    """The outline of a mask in COCO RLE, in the picture's pixels."""
    import cv2

    height_px, width_px = mask["size"]
    full = decode_mask(Rle(height_px, width_px, mask["counts"])).astype(np.uint8)
    size = (picture.width_px, picture.height_px)
    soft = cv2.resize(full * 255, size, interpolation=cv2.INTER_AREA)
    small = soft >= min(128, int(soft.max()))  # a mask thinner than a pixel keeps its best pixels
    grid = small.astype(np.uint8)
    contours, _ = cv2.findContours(grid, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    smooth = [cv2.approxPolyDP(contour, SIMPLIFY_PX, True)[:, 0] for contour in contours]
    x, y = _number_place(small)
    return Outline("".join(_svg_path(points) for points in smooth), x, y)


def _svg_path(points: Sequence[Sequence[int]]) -> str:
    steps = " ".join(f"{x + 0.5:g},{y + 0.5:g}" for x, y in points)
    return f"M{steps}Z"


def _number_place(mask: Mask) -> tuple[float, float]:
    """The point farthest from the mask's edge; above or below a mask that its number would hide."""
    import cv2

    padded = np.pad(mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    x, y = float(column) - 0.5, float(row) - 0.5
    if depth.max() < THIN_SHARE * mask.shape[1]:
        _, top, _, bottom = mask_box(mask)
        gap = NUMBER_GAP_SHARE * mask.shape[1]
        y = top - gap if top >= 2 * gap else bottom + gap
    return x, y
