"""Which regions of which images a caller asks for, in one form."""

from collections.abc import Sequence
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixclip.inputs import ImageLike, RegionLike

# An image and the regions wanted of it; `None` is the whole image.
ImageRegions = tuple[ImageLike, list[RegionLike | None]]


def pair_regions(images: Any, masks: Any = None) -> list[ImageRegions]:
    """Every image with its regions, in order.

    `images` is one image or a list. For one, `masks` is a region or a list of regions; for a
    list, it has an entry for every image: `None`, a region or a list of regions. A list is one
    region only if it holds bare numbers (a box, a polygon): a region of two polygons in a list
    of regions is `[[polygon, polygon]]`.

    Raises:
        ValueError: not as many entries in `masks` as images.
    """
    if is_image(images):
        return [(images, _as_regions(masks))]
    images = list(images)
    if masks is None:
        return [(image, [None]) for image in images]
    masks = list(masks)
    if len(masks) != len(images):
        raise ValueError(
            f"{len(images)} images came with {len(masks)} entries of masks; give one entry for "
            "every image: None, a mask or a list of masks (or the image itself, not in a list)"
        )
    return [(image, _as_regions(entry)) for image, entry in zip(images, masks, strict=True)]


def is_image(value: object) -> bool:
    """Whether a value is one image, not several."""
    is_array = isinstance(value, np.ndarray) and value.ndim == 3
    return is_array or isinstance(value, Image.Image | str | Path | bytes)


def _as_regions(value: Any) -> list[RegionLike | None]:
    if value is None:
        return [None]
    num_axes = getattr(value, "ndim", None)
    if num_axes is not None:  # an array: [H, W] a mask, [K, H, W] a stack, [4] a box
        return list(value) if num_axes > 2 else [value]
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if is_list and not _holds_numbers(value):
        return list(value)
    return [value]


def _holds_numbers(values: Sequence[Any]) -> bool:
    return len(values) > 0 and all(isinstance(value, Number) for value in values)
