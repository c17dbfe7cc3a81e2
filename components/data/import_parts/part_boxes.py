"""Boxes for parts of which only points are published.

CUB-200-2011, Birdsnap and NABirds say where a part is, not how large. The rule:

1. The unit is the object's size: the square root of its box's area.
2. A part's box is a square around its point. Its side is `neighbour_factor` times the distance to
   the nearest other visible part, the distance being the larger of its two components: with a
   factor of 1 the boxes of two nearest neighbours touch. The side is no less than `min_side_share`
   and no more than `max_side_share` of the unit; of an object with one visible part it is the
   geometric mean of the two.
3. It is clipped by the object's box, widened by `object_margin_share` of the unit, by the
   photograph, and, where there is a segmentation, to the object's pixels inside it.

Left and right are kept as annotated: those of the animal, not of the picture.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.data.formats.parts import Point
from pixclip.masks import Box, Mask

SAME_PLACE_PX = 1.0  # points that are no further apart are one place: no distance between parts


class BoxRule(BaseModel):
    """How large the box around a part's point is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    neighbour_factor: float = Field(
        1.2,
        description="side of a box as a multiple of the distance to the nearest other part; 1 lets "
        "neighbours touch, a little more keeps the part's own edge in the picture",
        gt=0,
        le=4,
    )
    min_side_share: float = Field(
        0.12,
        description="smallest side as a share of the object's size: about a bird's eye with its "
        "surroundings",
        gt=0,
        le=1,
    )
    max_side_share: float = Field(
        0.4,
        description="largest side as a share of the object's size: about a folded wing; more would "
        "show the object, not the part",
        gt=0,
        le=1,
    )
    object_margin_share: float = Field(
        0.05,
        description="how far a box may pass the object's box, as a share of the object's size: "
        "points of tails and beaks lie on its edge",
        ge=0,
        le=1,
    )

    @model_validator(mode="after")
    def _is_ordered(self) -> "BoxRule":
        if self.min_side_share > self.max_side_share:
            raise ValueError(
                f"min_side_share {self.min_side_share} is more than max_side_share "
                f"{self.max_side_share}"
            )
        return self


def boxes_of_points(
    points: Sequence[Point], object_box: Box, image_box: Box, rule: BoxRule
) -> list[Box | None]:
    """A box for every visible part, in pixels; None for one that does not meet the object.

    `image_box` is what of the image may be shown.
    """
    if not points:
        return []
    x1, y1, x2, y2 = object_box
    unit = float(np.sqrt((x2 - x1) * (y2 - y1)))
    margin = rule.object_margin_share * unit
    around = intersection((x1 - margin, y1 - margin, x2 + margin, y2 + margin), image_box)
    if around is None:
        return [None] * len(points)
    boxes = []
    for (x, y), side in zip(points, _sides(points, unit, rule), strict=True):
        half = side / 2
        boxes.append(intersection((x - half, y - half, x + half, y + half), around))
    return boxes


def _sides(points: Sequence[Point], unit: float, rule: BoxRule) -> list[float]:
    low, high = rule.min_side_share * unit, rule.max_side_share * unit
    places = np.asarray(points, dtype=float)
    apart = np.abs(places[:, None] - places[None]).max(axis=2)
    apart[apart <= SAME_PLACE_PX] = np.inf
    nearest = apart.min(axis=1)
    alone = np.sqrt(low * high)
    sides = np.where(np.isinf(nearest), alone, np.clip(rule.neighbour_factor * nearest, low, high))
    return [float(side) for side in sides]


def intersection(box: Box, other: Box) -> Box | None:
    """What two boxes share; None if that has no area."""
    x1, y1 = max(box[0], other[0]), max(box[1], other[1])
    x2, y2 = min(box[2], other[2]), min(box[3], other[3])
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def cut_by_mask(box: Box, mask: Mask) -> tuple[Box, Mask] | None:
    """The box around the mask's pixels in a box, and these pixels [H, W]; None if there are none.

    A pixel belongs to a box that covers its centre.
    """
    x1, y1, x2, y2 = (round(value) for value in box)
    inside = np.zeros_like(mask)
    inside[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    inside &= mask
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return None
    tight = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    shared = intersection(box, (float(tight[0]), float(tight[1]), float(tight[2]), float(tight[3])))
    return (shared, inside) if shared else None
