"""Measure where regions are and how they stand to each other, from their boxes and masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco

from pixclip.masks import Box, Rle

MAX_NEIGHBOURS = 2
OVERLAP_SHARE = 0.02  # of the smaller mask
SIZE_STEP = 1.4  # ratio of areas from which on one is called larger
RANK_MARGIN = 0.05  # share of the image's side by which a region must lead its rivals
MIN_RANKED = 3


@dataclass(frozen=True)
class Relation:
    """How a region stands to a neighbour, seen from the region."""

    neighbour: int  # index in the scene
    horizontal: str  # "left", "right" or ""
    vertical: str  # "above", "below" or ""
    is_overlapping: bool
    is_close: bool
    size: str  # "larger", "smaller" or "alike"


@dataclass(frozen=True)
class Place:
    """Where a region is in the image and among the others."""

    column: str  # "left", "centre" or "right"
    row: str  # "upper", "middle" or "lower"
    touched_edges: tuple[str, ...]
    relations: tuple[Relation, ...]
    ranks: tuple[str, ...]  # "leftmost", "rightmost", "topmost", "lowest", "largest", "smallest"
    num_regions: int


def measure_places(
    boxes: Sequence[Box], areas_px: Sequence[int], rles: Sequence[Rle], width: int, height: int
) -> list[Place]:
    """The place of every region of a scene; boxes are the tight boxes of the masks."""
    shared = _overlaps(rles, areas_px)
    ranks = _ranks(np.array(boxes), np.array(areas_px), width, height)
    return [
        Place(
            column=_third(box[0] + box[2], width, ("left", "centre", "right")),
            row=_third(box[1] + box[3], height, ("upper", "middle", "lower")),
            touched_edges=_touched_edges(box, width, height),
            relations=tuple(
                _relation(index, other, boxes, areas_px, bool(shared[index, other]))
                for other in _nearest(index, boxes)
            ),
            ranks=ranks[index],
            num_regions=len(boxes),
        )
        for index, box in enumerate(boxes)
    ]


def _third(twice_centre: float, side: int, names: tuple[str, str, str]) -> str:
    # Without a division, so that a mirrored box lands exactly in the mirrored third.
    if 3 * twice_centre < 2 * side:
        return names[0]
    return names[2] if 3 * twice_centre > 4 * side else names[1]


def _touched_edges(box: Box, width: int, height: int) -> tuple[str, ...]:
    touches = {
        "left": box[0] <= 0,
        "right": box[2] >= width,
        "top": box[1] <= 0,
        "bottom": box[3] >= height,
    }
    return tuple(name for name, is_touched in touches.items() if is_touched)


def _nearest(index: int, boxes: Sequence[Box]) -> list[int]:
    """The nearest other regions by the gap between boxes, then by the distance of centres."""
    others = [other for other in range(len(boxes)) if other != index]
    return sorted(others, key=lambda other: (*_distance(boxes[index], boxes[other]), other))[
        :MAX_NEIGHBOURS
    ]


def _distance(first: Box, second: Box) -> tuple[float, float]:
    gap_x = max(first[0] - second[2], second[0] - first[2], 0.0)
    gap_y = max(first[1] - second[3], second[1] - first[3], 0.0)
    centre_x = abs(first[0] + first[2] - second[0] - second[2])
    centre_y = abs(first[1] + first[3] - second[1] - second[3])
    return gap_x**2 + gap_y**2, centre_x**2 + centre_y**2


def _relation(
    index: int, other: int, boxes: Sequence[Box], areas_px: Sequence[int], is_overlapping: bool
) -> Relation:
    first, second = boxes[index], boxes[other]
    horizontal, vertical = _direction(first, second)
    gap = _distance(first, second)[0] ** 0.5
    reach = max(second[2] - second[0], second[3] - second[1])
    return Relation(
        neighbour=other,
        horizontal=horizontal,
        vertical=vertical,
        is_overlapping=is_overlapping,
        is_close=gap <= 0.25 * reach,
        size=_compare(areas_px[index], areas_px[other]),
    )


def _direction(first: Box, second: Box) -> tuple[str, str]:
    """Left or right, above or below: both if neither outweighs the other."""
    shift_x = first[0] + first[2] - second[0] - second[2]
    shift_y = first[1] + first[3] - second[1] - second[3]
    # In units of the boxes: beside a wide thing is farther away than beside a narrow one.
    extent_x = first[2] - first[0] + second[2] - second[0]
    extent_y = first[3] - first[1] + second[3] - second[1]
    weight_x, weight_y = abs(shift_x) / extent_x, abs(shift_y) / extent_y
    horizontal = "left" if shift_x < 0 else "right"
    vertical = "above" if shift_y < 0 else "below"
    has_x = weight_x > 0.25 and 2 * weight_x >= weight_y
    has_y = weight_y > 0.25 and 2 * weight_y >= weight_x
    return horizontal if has_x else "", vertical if has_y else ""


def _compare(first_px: int, second_px: int) -> str:
    if first_px >= SIZE_STEP * second_px:
        return "larger"
    return "smaller" if second_px >= SIZE_STEP * first_px else "alike"


def _overlaps(rles: Sequence[Rle], areas_px: Sequence[int]) -> Any:
    """Which pairs of masks share pixels [N, N], from their run lengths."""
    encoded = [rle.as_coco() for rle in rles]
    # With `iscrowd`, the intersection is divided by the area of the first mask.
    shares = np.asarray(coco.iou(encoded, encoded, [True] * len(encoded)))
    areas = np.array(areas_px)
    return shares * areas[:, None] > OVERLAP_SHARE * np.minimum(areas[:, None], areas[None, :])


def _ranks(boxes: Any, areas_px: Any, width: int, height: int) -> list[tuple[str, ...]]:
    """For each region, in what it clearly leads all the others."""
    num_regions = len(boxes)
    if num_regions < MIN_RANKED:
        return [()] * num_regions
    centres_x, centres_y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    sizes = np.log(areas_px)
    keys = {
        "leftmost": (-centres_x, RANK_MARGIN * width),
        "rightmost": (centres_x, RANK_MARGIN * width),
        "topmost": (-centres_y, RANK_MARGIN * height),
        "lowest": (centres_y, RANK_MARGIN * height),
        "largest": (sizes, np.log(SIZE_STEP) / 2),
        "smallest": (-sizes, np.log(SIZE_STEP) / 2),
    }
    leaders: list[list[str]] = [[] for _ in range(num_regions)]
    for name, (values, margin) in keys.items():
        second, first = np.argsort(values, kind="stable")[-2:]
        if values[first] - values[second] > margin:
            leaders[first].append(name)
    return [tuple(names) for names in leaders]
