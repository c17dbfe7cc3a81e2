"""Read COCO annotation files (https://cocodataset.org/#format-data) strictly."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.kernel.errors import InputError

MAX_PIXELS = 2**31 - 1  # what run lengths can count


@dataclass(frozen=True)
class CocoRegion:
    """One annotated object."""

    name: str
    box_xywh: tuple[float, float, float, float]
    segmentation: Any  # polygons, RLE or None; judged when it is turned into a mask
    is_crowd: bool


@dataclass
class CocoImage:
    """One image with its objects and captions."""

    image_id: int
    file_name: str
    width_px: int
    height_px: int
    regions: list[CocoRegion] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


def read_json(path: Path, name: str) -> Mapping[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: the file is missing or no JSON object.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{name} is not a COCO file: the top level is no object")
    return content


def read_images(content: Mapping[str, Any], name: str) -> dict[int, CocoImage]:
    """The images by id, with the objects and captions of the annotations.

    Raises:
        InputError: names the entry and the key that is missing or wrong.
    """
    images = {}
    for place, entry in _entries(content, "images", name):
        image = _image(entry, place)
        if image.image_id in images:
            raise InputError(f"{place}: the image id {image.image_id} occurs twice")
        images[image.image_id] = image
    categories = {
        _whole(entry, "id", place): _text(entry, "name", place)
        for place, entry in _entries(content, "categories", name, required=False)
    }
    add_annotations(images, content, name, categories)
    return images


def add_annotations(
    images: Mapping[int, CocoImage],
    content: Mapping[str, Any],
    name: str,
    categories: Mapping[int, str],
) -> None:
    """Add objects and captions to their images; an entry with `caption` is a caption."""
    for place, entry in _entries(content, "annotations", name):
        image_id = _whole(entry, "image_id", place)
        if image_id not in images:
            raise InputError(f"{place}: there is no image {image_id}")
        if "caption" in entry:
            images[image_id].captions.append(_text(entry, "caption", place))
        else:
            images[image_id].regions.append(_region(entry, categories, place))


def _image(entry: Mapping[str, Any], place: str) -> CocoImage:
    width, height = _whole(entry, "width", place), _whole(entry, "height", place)
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise InputError(f"{place}: an image of {width} x {height} pixels")
    file_name = _text(entry, "file_name", place)
    return CocoImage(_whole(entry, "id", place), file_name, width, height)


def _region(entry: Mapping[str, Any], categories: Mapping[int, str], place: str) -> CocoRegion:
    category = _whole(entry, "category_id", place)
    if category not in categories:
        raise InputError(f"{place}: there is no category {category}")
    box = entry.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        raise InputError(f"{place}: 'bbox' is {box!r}, not four numbers x, y, width, height")
    x, y, width, height = map(float, box)
    return CocoRegion(
        name=categories[category],
        box_xywh=(x, y, width, height),
        segmentation=entry.get("segmentation"),
        is_crowd=bool(entry.get("iscrowd", 0)),
    )


def _entries(
    content: Mapping[str, Any], key: str, name: str, *, required: bool = True
) -> list[tuple[str, Mapping[str, Any]]]:
    entries = content.get(key, None if required else [])
    if not isinstance(entries, list):
        raise InputError(f"{name} is not a COCO file: it has no list '{key}'")
    places = [f"{name}: {key}[{number}]" for number in range(len(entries))]
    for place, entry in zip(places, entries, strict=True):
        if not isinstance(entry, dict):
            raise InputError(f"{place} is no object")
    return list(zip(places, entries, strict=True))


def _whole(entry: Mapping[str, Any], key: str, place: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        raise InputError(f"{place}: '{key}' is {value!r}, not a whole number")
    return value


def _text(entry: Mapping[str, Any], key: str, place: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{place}: '{key}' is {value!r}, not a text")
    return " ".join(value.split()) if key != "file_name" else value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
