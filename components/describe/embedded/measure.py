"""Measure the regions of a scene: everything that the rules may talk about."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from components.describe.embedded.colours import Colour, Pixels, name_colours
from components.describe.embedded.layout import Place, measure_places
from components.describe.embedded.shape import Shape, measure_shape
from components.describe.types import Region, Scene
from pixclip.masks import Box, Mask, decode_mask, mask_box

MAX_CROP_PIXELS = 200_000  # larger crops are thinned out: shape and surface do not need more
MAX_COLOUR_PIXELS = 16_000
SURROUNDINGS = 0.2  # of the box's longer side, on each side
MIN_SURROUNDINGS_PX = 8


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
    taken = np.logical_or.reduce(masks)
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
    pixels = picture[crop]
    pixels = pixels[:: -(-len(pixels) // MAX_COLOUR_PIXELS)]
    return Measures(
        region=region,
        shape=measure_shape(_tight(crop)),
        area_px=int(np.count_nonzero(mask)),
        colours=name_colours(pixels),
        pixels=pixels,
        edge_density=edge_density(picture, crop),
        surroundings=_surroundings(image, taken, (x1, y1, x2, y2)),
        place=place,
    )


def _tight(crop: Mask) -> Mask:
    """The crop without the empty border that thinning may leave."""
    x1, y1, x2, y2 = (int(side) for side in mask_box(crop))
    return crop[y1:y2, x1:x2]


def edge_density(picture: Pixels, crop: Mask) -> float:
    """The mean step of lightness between neighbouring pixels that are both inside the mask."""
    lightness = picture @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    steps = [np.abs(np.diff(lightness, axis=axis))[_both_inside(crop, axis)] for axis in (0, 1)]
    all_steps = np.concatenate(steps)
    return float(all_steps.mean()) if len(all_steps) else 0.0


def _both_inside(crop: Mask, axis: int) -> Mask:
    return crop[1:] & crop[:-1] if axis == 0 else crop[:, 1:] & crop[:, :-1]


def _surroundings(image: Pixels, taken: Mask, box: tuple[int, int, int, int]) -> tuple[Colour, ...]:
    x1, y1, x2, y2 = box
    margin = max(round(SURROUNDINGS * max(x2 - x1, y2 - y1)), MIN_SURROUNDINGS_PX)
    top, left = max(y1 - margin, 0), max(x1 - margin, 0)
    area = (y2 + margin - top) * (x2 + margin - left)
    stride = max(1, round(np.sqrt(area / MAX_COLOUR_PIXELS)))
    window = (slice(top, y2 + margin, stride), slice(left, x2 + margin, stride))
    pixels: npt.NDArray[np.uint8] = image[window][~taken[window]]
    return name_colours(pixels) if len(pixels) >= MIN_SURROUNDINGS_PX**2 else ()
