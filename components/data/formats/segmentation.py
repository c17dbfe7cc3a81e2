"""COCO segmentations (polygons, uncompressed and compressed RLE) as compressed RLE counts.

A part that cannot be used is left out and counted; the others make the mask. Forms that can mean
one thing only are read although no standard has them: a flat list of coordinates, lists of
points, RLE in a list, compressed counts that were written as Python bytes.
"""

import ast
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import ge, le
from typing import Any

from components.data.formats.values import read_numbers, shown
from data_contracts.reasons import MaskPartReason
from pixclip.masks import MAX_OUTLINE_PX, outline_px, rle_num_pixels

MAX_POLYGON_POINTS = 100_000
MAX_NESTING = 4
FAR_PX = 1e9  # points beyond are drawn in: nothing of an image lies there
Encoded = dict[str, Any]
Box = tuple[float, float, float, float]  # x, y, width, height


class UnusableMaskError(ValueError):
    """A segmentation that describes no mask of its image."""


class BadPartError(ValueError):
    """A part of a segmentation that describes nothing; `reason` is a short code."""

    def __init__(self, reason: MaskPartReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def mask_counts(
    segmentation: Any, height_px: int, width_px: int, flaws: Counter[str] | None = None
) -> str | None:
    """Compressed counts of a mask of the image's size; None if there is no segmentation.

    Counts in `flaws` why parts were left out (`left_out.…`) or read although their form is none
    of COCO's (`repaired.…`).

    Raises:
        UnusableMaskError: no part is usable: damaged, empty or of an image of another size.
    """
    from pycocotools import mask as coco

    if segmentation in (None, [], {}, ""):
        return None
    flaws = Counter[str]() if flaws is None else flaws
    details: list[str] = []
    encoded: list[Encoded] = []
    budget_px = float(MAX_OUTLINE_PX)
    for part in _parts(segmentation, flaws):
        try:
            if isinstance(part, dict):
                encoded.append(_from_rle(part, height_px, width_px, flaws))
            else:
                points = _points(part, height_px, width_px, flaws)
                length_px = outline_px(points)
                # A longer side than any outline overflows pycocotools' coordinates.
                if max(height_px, width_px, length_px) > budget_px:
                    detail = f"polygons with an outline of over {MAX_OUTLINE_PX} pixels"
                    raise BadPartError(MaskPartReason.LONG_OUTLINE, detail)
                budget_px -= length_px
                encoded.append(_from_polygon(points, height_px, width_px))
        except BadPartError as error:
            details.append(f"{error.reason}: {error}")
            flaws[f"left_out.{error.reason}"] += 1
    if not encoded:
        more = f" (and {len(details) - 1} more such parts)" if len(details) > 1 else ""
        raise UnusableMaskError(f"{details[0]}{more}")
    merged = encoded[0] if len(encoded) == 1 else coco.merge(encoded)
    counts: str = merged["counts"].decode("ascii")
    return counts


def _parts(segmentation: Any, flaws: Counter[str]) -> list[Any]:
    """The parts of a segmentation: polygons as flat lists, and RLE as objects."""
    if not isinstance(segmentation, list):
        return [segmentation]
    if not any(isinstance(part, list | dict) for part in segmentation):
        flaws["repaired.flat_list"] += 1  # a polygon without the list around it
        return [segmentation]
    flaws["repaired.rle_in_list"] += any(isinstance(part, dict) for part in segmentation)
    return _flattened(segmentation, MAX_NESTING, flaws)


def _flattened(parts: list[Any], nesting: int, flaws: Counter[str]) -> list[Any]:
    """Lists of points as flat lists; lists of parts as their parts."""
    if len(parts) > 2 and all(_is_point(part) for part in parts):
        flaws["repaired.list_of_points"] += 1
        return [[value for part in parts for value in part]]
    found: list[Any] = []
    for part in parts:
        is_nested = isinstance(part, list) and any(isinstance(inner, list | dict) for inner in part)
        found += _flattened(part, nesting - 1, flaws) if is_nested and nesting else [part]
    return found


def _is_point(part: Any) -> bool:
    return (
        isinstance(part, list)
        and len(part) == 2
        and not any(isinstance(value, list | dict) for value in part)
    )


Point = tuple[float, float]
Points = list[Point]


def _points(part: Any, height_px: int, width_px: int, flaws: Counter[str]) -> Points:
    """The corners of a polygon x, y, x, y, … inside the image.

    Far-off points would make pycocotools take memory for the whole way there.
    """
    if not isinstance(part, list):
        raise BadPartError(
            MaskPartReason.NOT_A_SHAPE, f"{shown(part)} is neither a polygon nor an RLE"
        )
    if not part:
        raise BadPartError(MaskPartReason.EMPTY_PART, "a part without any point")
    if len(part) > 2 * MAX_POLYGON_POINTS:
        raise BadPartError(
            MaskPartReason.MANY_POINTS, f"a polygon of over {MAX_POLYGON_POINTS} points"
        )
    numbers = read_numbers(part)
    if numbers is None:
        raise BadPartError(
            MaskPartReason.NOT_NUMBERS, "a polygon is a list of finite numbers x, y, x, y, …"
        )
    if len(numbers) % 2:
        raise BadPartError(MaskPartReason.ODD_NUMBERS, f"{len(numbers)} numbers are no pairs x, y")
    if len(numbers) < 6:
        raise BadPartError(MaskPartReason.TWO_POINTS, "a polygon needs three points or more")
    near = [min(max(number, -FAR_PX), FAR_PX) for number in numbers]
    points = clip(list(zip(near[::2], near[1::2], strict=True)), width_px, height_px)
    far_px = max(-min(near), max(near[::2]) - width_px, max(near[1::2]) - height_px)
    if len(points) < 3:
        raise BadPartError(
            MaskPartReason.OUTSIDE_IMAGE, f"no part of it is in {width_px} x {height_px} pixels"
        )
    flaws["repaired.points_outside_image"] += far_px > 1
    return points


def _from_polygon(points: Points, height_px: int, width_px: int) -> Encoded:
    from pycocotools import mask as coco

    flat = [value for point in points for value in point]
    (encoded,) = coco.frPyObjects([flat], height_px, width_px)
    if not coco.area(encoded):
        raise BadPartError(MaskPartReason.NO_AREA, "a polygon that covers no pixel")
    found: Encoded = encoded
    return found


def _from_rle(rle: dict[str, Any], height_px: int, width_px: int, flaws: Counter[str]) -> Encoded:
    from pycocotools import mask as coco

    size = rle.get("size")
    numbers = read_numbers(size) if isinstance(size, list) else None
    if size is not None and numbers != [height_px, width_px]:
        turned = " (height and width swapped?)" if numbers == [width_px, height_px] else ""
        raise BadPartError(
            MaskPartReason.WRONG_SIZE,
            f"size {shown(size)} of an image of {height_px} x {width_px}{turned}",
        )
    counts, own_size = rle.get("counts"), [height_px, width_px]
    if isinstance(counts, str):
        encoded = {"size": own_size, "counts": _as_bytes(counts, flaws)}
    else:
        runs = _runs(counts)
        if sum(runs) != height_px * width_px:
            raise BadPartError(MaskPartReason.BAD_RUNS, "the runs do not add up to the image")
        encoded = coco.frPyObjects({"size": own_size, "counts": runs}, height_px, width_px)
    _check(encoded, height_px, width_px)
    return encoded


def _runs(counts: Any) -> list[int]:
    if isinstance(counts, list):
        numbers = read_numbers(counts)
        if numbers and all(number >= 0 and number.is_integer() for number in numbers):
            return list(map(int, numbers))
    raise BadPartError(
        MaskPartReason.BAD_RUNS, f"counts {shown(counts)} are no list of runs and no text"
    )


def _as_bytes(counts: str, flaws: Counter[str]) -> bytes:
    """Compressed counts, also where a tool wrote Python's form of bytes, `b'…'`, into the file."""
    text = counts.strip()
    if text[:2] in ("b'", 'b"') and text[-1:] == text[1]:  # no quote occurs in real counts
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
        if isinstance(value, bytes):
            flaws["repaired.python_bytes"] += 1
            return value
    return text.encode("ascii", "replace")


def _check(encoded: Encoded, height_px: int, width_px: int) -> None:
    """Counts are checked before pycocotools decodes them: it trusts them."""
    from pycocotools import mask as coco

    try:
        num_pixels = rle_num_pixels(encoded["counts"].decode("ascii", "replace"))
    except ValueError as error:
        raise BadPartError(MaskPartReason.BAD_RUNS, str(error)) from None
    if num_pixels != height_px * width_px:
        raise BadPartError(
            MaskPartReason.BAD_RUNS, f"{num_pixels} pixels of an image of {height_px} x {width_px}"
        )
    if not coco.area(encoded):
        raise BadPartError(MaskPartReason.EMPTY_MASK, "the mask is empty")


def clip(points: Points, width_px: float, height_px: float) -> Points:
    """The corners of a polygon's part inside the image (Sutherland and Hodgman 1974)."""
    for axis, limit in ((0, float(width_px)), (1, float(height_px))):
        if any(not 0 <= point[axis] <= limit for point in points):
            points = _clip_side(points, axis, 0.0, partial(le, 0.0))
            points = _clip_side(points, axis, limit, partial(ge, limit))
    return points


def _clip_side(
    points: Points, axis: int, limit: float, is_inside: Callable[[float], bool]
) -> Points:
    kept: Points = []
    for number, point in enumerate(points):
        before = points[number - 1]
        if is_inside(point[axis]) != is_inside(before[axis]):
            kept.append(_crossing(before, point, axis, limit))
        if is_inside(point[axis]):
            kept.append(point)
    return kept


def _crossing(first: Point, second: Point, axis: int, limit: float) -> Point:
    """Where a line meets the side at which its coordinate of `axis` is `limit`."""
    share = (limit - first[axis]) / (second[axis] - first[axis])
    other = first[1 - axis] + share * (second[1 - axis] - first[1 - axis])
    return (limit, other) if axis == 0 else (other, limit)


@dataclass(frozen=True)
class OwnMask:
    """A region's own mask, if it has one that can be used, and what was wrong with it."""

    counts: str | None = None
    fault: str | None = None


def own_mask(segmentation: Any, height_px: int, width_px: int, counts: Counter[str]) -> OwnMask:
    """The mask of a segmentation; counts what had to be left out, repaired or given up."""
    flaws: Counter[str] = Counter()
    try:
        found = mask_counts(segmentation, height_px, width_px, flaws)
        flaws = +flaws
        mask = OwnMask(found, _told(flaws) if flaws else None)
        counts["masks_repaired"] += bool(flaws)
    except UnusableMaskError as error:
        mask = OwnMask(None, str(error))
        counts["masks_unusable"] += 1
    counts.update({f"mask_parts.{flaw}": number for flaw, number in (+flaws).items()})
    return mask


def _told(flaws: Counter[str]) -> str:
    """`left out: two_points 1; repaired: flat_list 1`."""
    ways: dict[str, list[str]] = {}
    for flaw, number in sorted(flaws.items()):
        way, _, reason = flaw.partition(".")
        ways.setdefault(way.replace("_", " "), []).append(f"{reason} {number}")
    return "; ".join(f"{way}: {', '.join(reasons)}" for way, reasons in ways.items())


def box_of_mask(counts: str, height_px: int, width_px: int) -> Box:
    """The tightest box x, y, width, height around a mask."""
    from pycocotools import mask as coco

    encoded = {"size": [height_px, width_px], "counts": counts.encode("ascii")}
    x, y, width, height = (float(value) for value in coco.toBbox(encoded))
    return x, y, width, height
