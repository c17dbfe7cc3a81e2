"""The part of a polygon inside its image, and the length of its outline."""

from collections.abc import Callable
from functools import partial
from operator import ge, le

Point = tuple[float, float]
Points = list[Point]


def clip(points: Points, width_px: float, height_px: float) -> Points:
    """The corners of a polygon's part inside the image (Sutherland and Hodgman 1974)."""
    for axis, limit in ((0, float(width_px)), (1, float(height_px))):
        if any(not 0 <= point[axis] <= limit for point in points):
            points = _clip_side(points, axis, 0.0, partial(le, 0.0))
            points = _clip_side(points, axis, limit, partial(ge, limit))
    return points


def outline_px(points: Points) -> float:
    """The steps that pycocotools takes along a polygon, which it closes itself."""
    return sum(
        1 + max(abs(x - points[number - 1][0]), abs(y - points[number - 1][1]))
        for number, (x, y) in enumerate(points)
    )


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
