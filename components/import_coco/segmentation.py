"""COCO segmentations (polygons, uncompressed and compressed RLE) as compressed RLE counts."""

import math
from typing import Any

from pixclip.masks import rle_num_pixels

MAX_POLYGON_POINTS = 100_000
MAX_OUTLINE_PX = 2_000_000  # pycocotools takes some 50 bytes a pixel of outline


class UnusableMaskError(ValueError):
    """A segmentation that describes no mask of its image."""


def mask_counts(segmentation: Any, height_px: int, width_px: int) -> str | None:
    """Compressed counts of a mask of the image's size; None if there is no segmentation.

    Raises:
        UnusableMaskError: the segmentation is damaged, empty or of an image of another size.
    """
    if segmentation in (None, []):
        return None
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, height_px, width_px)
    if isinstance(segmentation, dict):
        return _from_rle(segmentation, height_px, width_px)
    raise UnusableMaskError(f"a segmentation of type {type(segmentation).__name__}")


def _from_polygons(polygons: list[Any], height_px: int, width_px: int) -> str:
    from pycocotools import mask as coco

    clipped = [_clip(polygon, height_px, width_px) for polygon in polygons]
    # A longer side than any outline overflows pycocotools' coordinates.
    if max(height_px, width_px, sum(map(_outline_px, clipped))) > MAX_OUTLINE_PX:
        raise UnusableMaskError(f"polygons with an outline of over {MAX_OUTLINE_PX} pixels")
    merged = coco.merge(coco.frPyObjects(clipped, height_px, width_px))
    return _checked(merged, height_px, width_px)


def _clip(polygon: Any, height_px: int, width_px: int) -> list[float]:
    """A polygon x, y, x, y, … inside the image: far-off points would make pycocotools take
    memory for the whole way there."""
    if not isinstance(polygon, list) or not 6 <= len(polygon) <= 2 * MAX_POLYGON_POINTS:
        raise UnusableMaskError("a polygon needs three points or more")
    if len(polygon) % 2 or not all(
        isinstance(value, (int, float)) and math.isfinite(value) for value in polygon
    ):
        raise UnusableMaskError("a polygon is a list of finite numbers x, y, x, y, …")
    limits = (width_px, height_px)
    return [min(max(float(value), 0.0), limits[i % 2]) for i, value in enumerate(polygon)]


def _outline_px(polygon: list[float]) -> float:
    """The steps that pycocotools takes along a polygon, which it closes itself."""
    xs, ys = polygon[::2], polygon[1::2]
    return sum(1 + max(abs(xs[i] - xs[i - 1]), abs(ys[i] - ys[i - 1])) for i in range(len(xs)))


def _from_rle(rle: dict[str, Any], height_px: int, width_px: int) -> str:
    from pycocotools import mask as coco

    counts = rle.get("counts")
    if rle.get("size") != [height_px, width_px]:
        raise UnusableMaskError(f"size {rle.get('size')} of an image of {height_px} x {width_px}")
    if isinstance(counts, str):
        encoded = {"size": [height_px, width_px], "counts": counts.encode("ascii", "replace")}
        return _checked(encoded, height_px, width_px)
    is_whole = isinstance(counts, list) and all(isinstance(run, int) and run >= 0 for run in counts)
    if not is_whole or sum(counts or []) != height_px * width_px:
        raise UnusableMaskError("the runs do not add up to the image")
    return _checked(coco.frPyObjects(rle, height_px, width_px), height_px, width_px)


def _checked(encoded: dict[str, Any], height_px: int, width_px: int) -> str:
    from pycocotools import mask as coco

    counts: str = encoded["counts"].decode("ascii")
    try:
        num_pixels = rle_num_pixels(counts)
    except ValueError as error:
        raise UnusableMaskError(str(error)) from None
    if num_pixels != height_px * width_px:
        raise UnusableMaskError(f"{num_pixels} pixels of an image of {height_px} x {width_px}")
    if not coco.area(encoded):
        raise UnusableMaskError("the mask is empty")
    return counts
