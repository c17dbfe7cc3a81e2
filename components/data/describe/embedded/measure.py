"""Measure the regions of a scene and the shapes of their masks: all that rules may talk about."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from components.data.describe.embedded.colours import Colour, Pixels, name_colours
from components.data.describe.embedded.layout import Place, measure_places
from components.data.describe.scenes import Region, Scene
from pixclip.masks import Box, Mask, decode_mask, mask_box

MAX_CROP_PIXELS = 200_000  # larger crops are thinned out: shape and surface do not need more
MAX_COLOUR_PIXELS = 16_000
SURROUNDINGS = 0.2  # of the box's longer side, on each side
MIN_SURROUNDINGS_PX = 8


def edge_density(picture: Pixels, crop: Mask) -> float:
    """The mean step of lightness between neighbouring pixels that are both inside the mask."""
    lightness = picture @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    steps = [np.abs(np.diff(lightness, axis=axis))[_both_inside(crop, axis)] for axis in (0, 1)]
    all_steps = np.concatenate(steps)
    return float(all_steps.mean()) if len(all_steps) else 0.0


@dataclass(frozen=True)
class Shape:
    """The shape of a mask."""

    box_fill: float  # share of its bounding box
    solidity: float  # share of its convex hull
    elongation: float  # long axis over short axis of the ellipse with the same second moments
    angle_deg: float  # of the long axis against the horizontal, in (-90, 90], upwards to the right


@dataclass(frozen=True)
class Measures:
    """What was measured of one region."""

    region: Region
    shape: Shape
    area_px: int
    colours: tuple[Colour, ...]
    pixels: Pixels  # [N, 3] inside the mask, thinned out if there are many
    edge_density: float  # mean step of lightness between neighbouring pixels, 0 to 255
    surroundings: tuple[Colour, ...]  # around the region, outside all regions; may be empty
    place: Place

    @property
    def image_share(self) -> float:
        """The share of the image that the mask covers."""
        return self.area_px / (self.region.image_width_px * self.region.image_height_px)


def measure_scene(scene: Scene) -> list[Measures | None]:
    """The measures of each region in order; None for one whose mask is empty."""
    masks = [decode_mask(region.rle) for region in scene.regions]
    found = [index for index, mask in enumerate(masks) if mask.any()]
    if not found:
        return [None] * len(masks)
    image = np.asarray(scene.image)
    taken = np.zeros(masks[0].shape, dtype=bool)
    for mask in masks:
        taken |= mask
    boxes = [mask_box(masks[index]) for index in found]
    areas = [int(np.count_nonzero(masks[index])) for index in found]
    rles = [scene.regions[index].rle for index in found]
    places = measure_places(boxes, areas, rles, scene.image.width, scene.image.height)
    measures: list[Measures | None] = [None] * len(masks)
    for index, box, place in zip(found, boxes, _in_scene(places, found), strict=True):
        measures[index] = _measure(scene.regions[index], image, masks[index], taken, box, place)
    return measures


def _in_scene(places: Sequence[Place], found: Sequence[int]) -> list[Place]:
    """The same places, their neighbours numbered as in the scene and not as found."""
    return [
        replace(
            place,
            relations=tuple(
                replace(relation, neighbour=found[relation.neighbour])
                for relation in place.relations
            ),
        )
        for place in places
    ]


def _measure(
    region: Region, image: Pixels, mask: Mask, taken: Mask, box: Box, place: Place
) -> Measures:
    x1, y1, x2, y2 = (int(side) for side in box)
    stride = max(1, int(np.ceil(np.sqrt((x2 - x1) * (y2 - y1) / MAX_CROP_PIXELS))))
    window = (slice(y1, y2, stride), slice(x1, x2, stride))
    crop, picture = mask[window], image[window]
    if not crop.any():  # a thread-thin mask may fall through the thinning
        crop, picture = mask[y1:y2, x1:x2], image[y1:y2, x1:x2]
    inside = np.ascontiguousarray(crop)  # decoded masks lie column by column, pictures row by row
    pixels = _pixels_inside(picture, inside, MAX_COLOUR_PIXELS)
    return Measures(
        region=region,
        shape=measure_shape(_tight(crop)),
        area_px=int(np.count_nonzero(mask)),
        colours=name_colours(pixels),
        pixels=pixels,
        edge_density=edge_density(picture, inside),
        surroundings=_surroundings(image, taken, (x1, y1, x2, y2)),
        place=place,
    )


def _pixels_inside(picture: Pixels, crop: Mask, max_pixels: int) -> Pixels:
    """The pixels [N, 3] of a picture inside a mask in order, thinned out if they are many."""
    places = np.flatnonzero(crop)
    places = places[:: max(1, -(-len(places) // max_pixels))]
    rows, columns = np.divmod(places, crop.shape[1])
    return picture[rows, columns]


def _tight(crop: Mask) -> Mask:
    """The crop without the empty border that thinning may leave."""
    x1, y1, x2, y2 = (int(side) for side in mask_box(crop))
    return crop[y1:y2, x1:x2]


def _both_inside(crop: Mask, axis: int) -> Mask:
    return crop[1:] & crop[:-1] if axis == 0 else crop[:, 1:] & crop[:, :-1]


def _surroundings(image: Pixels, taken: Mask, box: tuple[int, int, int, int]) -> tuple[Colour, ...]:
    x1, y1, x2, y2 = box
    margin = max(round(SURROUNDINGS * max(x2 - x1, y2 - y1)), MIN_SURROUNDINGS_PX)
    top, left = max(y1 - margin, 0), max(x1 - margin, 0)
    area = (y2 + margin - top) * (x2 + margin - left)
    stride = max(1, round(np.sqrt(area / MAX_COLOUR_PIXELS)))
    window = (slice(top, y2 + margin, stride), slice(left, x2 + margin, stride))
    free = ~taken[window]
    pixels = _pixels_inside(image[window], free, free.size)
    return name_colours(pixels) if len(pixels) >= MIN_SURROUNDINGS_PX**2 else ()


Floats = npt.NDArray[np.float64]


def measure_shape(crop: Mask) -> Shape:
    """The shape of a mask [H, W] that is cropped to its bounding box and not empty."""
    area = int(np.count_nonzero(crop))
    variance_x, variance_y, covariance = _second_moments(crop, area)
    spread = np.hypot(variance_x - variance_y, 2 * covariance)
    long, short = (variance_x + variance_y + spread) / 2, (variance_x + variance_y - spread) / 2
    # Image rows count downwards: the sign turns the angle upwards.
    angle = -0.5 * np.degrees(np.arctan2(2 * covariance, variance_x - variance_y))
    return Shape(
        box_fill=area / crop.size,
        solidity=min(area / _hull_area(crop), 1.0),
        elongation=float(np.sqrt(long / short)),
        angle_deg=float(angle),
    )


def _second_moments(crop: Mask, area: int) -> tuple[float, float, float]:
    """Variances of x and y and their covariance over the pixels of a mask."""
    height, width = crop.shape
    xs, ys = np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2
    columns, rows = crop.sum(axis=0), crop.sum(axis=1)
    mean_x, mean_y = float(columns @ xs) / area, float(rows @ ys) / area
    mixed = float((crop.astype(np.float32) @ xs.astype(np.float32)) @ ys) / area
    # A pixel is a square and not a point: 1/12 is its own variance.
    variance_x = float(columns @ xs**2) / area - mean_x**2 + 1 / 12
    variance_y = float(rows @ ys**2) / area - mean_y**2 + 1 / 12
    return variance_x, variance_y, mixed - mean_x * mean_y


def _hull_area(crop: Mask) -> float:
    """The area of the convex hull of a mask's pixels, taken as squares."""
    import cv2  # slow to import

    rows = np.flatnonzero(crop.any(axis=1))
    left = crop[rows].argmax(axis=1)
    right = crop.shape[1] - crop[rows, ::-1].argmax(axis=1)
    corners = [(x, y) for x in (left, right) for y in (rows, rows + 1)]
    points = np.concatenate([np.stack(corner, axis=1) for corner in corners])
    return float(cv2.contourArea(cv2.convexHull(points.astype(np.int32))))
