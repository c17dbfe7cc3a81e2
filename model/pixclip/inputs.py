"""What callers have becomes what the model works with: an RGB image, and masks of its size.

Which regions of which images a caller asks for gets one form too.
"""

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Number
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco

from pixclip.images import ImageError, ImageFault, opaque, open_image
from pixclip.masks import (
    MAX_OUTLINE_PX,
    Mask,
    Rle,
    SoftMask,
    box_mask,
    decode_mask,
    outline_px,
)

ImageLike = Image.Image | npt.NDArray[np.uint8] | str | Path | bytes
LEAST_OPAQUE = 128  # the largest byte of a soft mask; a map of labels has small numbers
# An array or picture [H, W], an RLE (ours or COCO's), a box, a polygon or several polygons.
RegionLike = Rle | Mapping[str, Any] | Image.Image | npt.NDArray[Any] | Sequence[Any]


def as_image(image: ImageLike) -> Image.Image:
    """An RGB image from what callers have.

    A path or encoded bytes are opened safely and turned upright; a PIL image is taken as it is
    turned, so that masks made for it fit; an array is uint8 RGB [H, W, 3].

    Raises:
        ValueError: an array of another shape or type; `ImageError` if a file cannot be read or
            its bytes cannot be decoded, also those that a PIL image has not read yet.
    """
    try:
        return _opened(image)
    except (OSError, SyntaxError) as error:  # Pillow's word for a broken PNG is SyntaxError
        raise ImageError(ImageFault.UNREADABLE, f"{type(error).__name__}: {error}") from error


def _opened(image: ImageLike) -> Image.Image:
    if isinstance(image, str | Path):
        return open_image(Path(image).read_bytes())
    if isinstance(image, bytes):
        return open_image(image)
    if isinstance(image, Image.Image):
        image.load()  # else a file that ends too early would be found out later
        return opaque(image)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ValueError(
            f"an image array must be uint8 RGB of shape [height, width, 3], "
            f"got {array.dtype} {list(array.shape)}; convert it first"
        )
    return Image.fromarray(array)


def as_mask(region: RegionLike, height_px: int, width_px: int) -> Mask | SoftMask:
    """The mask [H, W] of a region of an image; float32 from 0 to 1 if it is soft.

    A region is an array or picture [H, W] (true, 1 or 255 inside; soft: bytes from 0 to 255, or
    numbers from 0 to 1), an RLE, a box (x1, y1, x2, y2) in pixels, a polygon [x, y, x, y, …] of
    three points or more, or a list of polygons.

    Raises:
        ValueError: the region is of an image of another size, holds nothing of the image, or is
            in no such form; says which and what to do.
    """
    mask: Mask | SoftMask
    if isinstance(region, Rle):
        _check_size((region.height_px, region.width_px), height_px, width_px)
        mask = decode_mask(region)
    elif isinstance(region, Mapping):
        mask = decode_mask(_as_rle(region, height_px, width_px))
    elif isinstance(region, Image.Image) or len(getattr(region, "shape", ())) > 1:
        mask = _of_array(np.asarray(region), height_px, width_px)
    elif not _is_list(region):
        raise ValueError(
            f"a region is an array, a picture, an RLE, a box or polygons, got {region!r}; "
            "a mask in a file is opened first: PIL.Image.open(path)"
        )
    else:
        mask = _of_numbers(list(region), height_px, width_px)
    if not mask.any():
        raise ValueError(
            f"the region covers no pixel of the image of {width_px} x {height_px}; "
            "for the whole image pass no mask"
        )
    return mask


def _is_list(region: object) -> bool:
    """Whether it holds numbers or polygons; a single number may be an array without sides."""
    is_iterable = isinstance(region, Iterable) and getattr(region, "ndim", 1) > 0
    return is_iterable and not isinstance(region, str | bytes | Path)


def _as_rle(data: Mapping[str, Any], height_px: int, width_px: int) -> Rle:
    """A COCO dictionary; its counts are a string, bytes or a list of runs."""
    try:
        size, counts = tuple(data["size"]), data["counts"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            "a run-length encoding needs `size` [height, width] and `counts`, "
            f"got {sorted(map(str, data))}"
        ) from None
    _check_size(size, height_px, width_px)
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    if isinstance(counts, str):
        return Rle(height_px, width_px, counts)
    is_runs = isinstance(counts, list) and all(isinstance(run, Integral) for run in counts)
    if not is_runs or min(counts, default=0) < 0 or sum(counts) != height_px * width_px:
        raise ValueError(f"the mask's runs do not add up to {height_px} x {width_px} pixels")
    runs = coco.frPyObjects(dict(data), height_px, width_px)
    return Rle(height_px, width_px, runs["counts"].decode("ascii"))


def _of_array(array: npt.NDArray[Any], height_px: int, width_px: int) -> Mask | SoftMask:
    if array.ndim == 2 and array.shape[1] == 4 != width_px:
        raise ValueError(f"an array of {len(array)} boxes is no mask; give them as list(boxes)")
    _check_size(array.shape, height_px, width_px)
    if array.dtype == np.bool_:
        # Pillow's true is the byte 255; compared, it becomes 1, which areas are summed of.
        return np.asarray(array != 0)
    values = np.unique(array)
    if np.isin(values, (0, 1)).all() or np.isin(values, (0, 255)).all():
        return np.asarray(array != 0)
    if np.issubdtype(array.dtype, np.floating) and values[0] >= 0 and values[-1] <= 1:
        return array.astype(np.float32)
    if array.dtype == np.uint8 and values[-1] >= LEAST_OPAQUE:
        return array.astype(np.float32) / np.float32(255)
    raise ValueError(
        "a mask array must hold 0 and 1, 0 and 255, or be soft: bytes that come near 255, or "
        f"numbers from 0 to 1; got {array.dtype} from {values[0]} to {values[-1]}; compare it with "
        "a threshold or a label first"
    )


def _check_size(shape: Sequence[int], height_px: int, width_px: int) -> None:
    if tuple(shape) != (height_px, width_px):
        raise ValueError(
            f"the mask is {' x '.join(map(str, shape))} (height x width), but its image is "
            f"{height_px} x {width_px}; a mask must be made for the image it goes with"
        )


def _of_numbers(numbers: list[Any], height_px: int, width_px: int) -> Mask:
    is_flat = all(np.ndim(number) == 0 for number in numbers)
    try:
        polygons = [np.asarray(p, dtype=float).ravel() for p in ([numbers] if is_flat else numbers)]
    except (TypeError, ValueError):
        polygons = []
    if not polygons or any(not len(p) or len(p) % 2 or not np.isfinite(p).all() for p in polygons):
        raise ValueError(
            f"a box or polygon must be pairs of finite numbers, got {reprlib.repr(numbers)}"
        )
    if is_flat and len(numbers) == 4:
        return _of_box(polygons[0], height_px, width_px)
    if any(len(polygon) > 8 and np.isin(polygon, (0, 1)).all() for polygon in polygons):
        raise ValueError("a mask in nested lists is read as polygons; give numpy.array(mask)")
    if any(len(polygon) < 6 for polygon in polygons):
        raise ValueError(
            f"a polygon needs three points [x, y, x, y, x, y], got {reprlib.repr(numbers)}"
        )
    corners = [list(zip(p[::2].tolist(), p[1::2].tolist(), strict=True)) for p in polygons]
    if sum(map(outline_px, corners)) > MAX_OUTLINE_PX:
        raise ValueError(
            f"the outline is longer than {MAX_OUTLINE_PX} pixels, far outside of the image of "
            f"{width_px} x {height_px}; give the polygon in pixels of this image"
        )
    outlines = coco.frPyObjects([p.tolist() for p in polygons], height_px, width_px)
    return np.asarray(coco.decode(coco.merge(outlines)), dtype=bool)


def _of_box(box: npt.NDArray[np.float64], height_px: int, width_px: int) -> Mask:
    x1, y1, x2, y2 = map(float, box)
    if x1 >= x2 or y1 >= y2:
        raise ValueError(f"a box must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2, got {box}")
    if min(x1, y1) >= 0 and max(x2, y2) <= 1 and any(side % 1 for side in box):
        raise ValueError(
            f"the box {box} looks like shares of the image; boxes are in pixels: multiply by "
            f"width {width_px} and height {height_px}"
        )
    return box_mask((x1, y1, x2, y2), height_px, width_px)


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
