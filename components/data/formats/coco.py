"""Read COCO annotation files (https://cocodataset.org/#format-data).

A file that is no such file is refused. An entry of it that cannot be used is left out, with its
place and a reason: one bad row costs itself.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.core.errors import InputError
from components.data.formats.values import (
    BadValueError,
    Id,
    LeftOut,
    read_flag,
    read_id,
    read_numbers,
    read_text,
    read_whole,
    record_number,
    safe_path,
    shown,
)
from data_contracts.reasons import ImportReason

MAX_PIXELS = 2**31 - 1  # what run lengths can count
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class CocoRegion:
    """One annotated object."""

    name: str
    box_xywh: Box | None  # None if only the segmentation says where it is
    segmentation: Any  # polygons, RLE or None; judged when it is turned into a mask
    is_crowd: bool
    place: str  # of the entry, for messages


@dataclass
class CocoImage:
    """One image with its objects and captions."""

    image_id: int
    file_name: str
    width_px: int
    height_px: int
    regions: list[CocoRegion] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)

    @property
    def what(self) -> tuple[str, int, int]:
        """What two entries of one image agree in."""
        return self.file_name, self.width_px, self.height_px


def read_json(path: Path, name: str) -> Mapping[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: the file is missing or no JSON object.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}") from None
    return read_json_bytes(data, name)


def read_json_bytes(data: bytes, name: str) -> Mapping[str, Any]:
    """The object in the content of a JSON file.

    Raises:
        InputError: it is none.
    """
    try:
        content = parse_json(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{name} is not a COCO file: the top level is no object with 'images', 'annotations' "
            "and 'categories'"
        )
    return content


def parse_json(data: bytes) -> Any:
    """The value of a JSON document; stray bytes and endless numbers spoil their own value only.

    Raises:
        ValueError, RecursionError: the bytes are no JSON.
    """
    try:
        text = data.decode(json.detect_encoding(data), "surrogatepass")
    except UnicodeDecodeError:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python reads no number of over 4300 digits; a float is infinite then
        return json.loads(text, parse_int=_whole_or_infinite)


def _whole_or_infinite(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def read_images(content: Mapping[str, Any], name: str, left_out: LeftOut) -> dict[Id, CocoImage]:
    """The images by id, with the objects and captions of the annotations.

    Raises:
        InputError: there is not one image or not one annotation that can be used.
    """
    images = _read_image_entries(content, name, left_out)
    add_annotations(images, content, name, _categories(content, name, left_out), left_out)
    return images


def add_annotations(
    images: Mapping[Id, CocoImage],
    content: Mapping[str, Any],
    name: str,
    categories: Mapping[Id, str],
    left_out: LeftOut,
) -> None:
    """Add objects and captions to their images.

    An entry with `caption` is a caption; it is an object too if it has a place and a category.

    Raises:
        InputError: there are annotations, but not one that can be used.
    """
    num_before, num_entries = left_out.reasons.total(), 0
    for place, entry in _entries(content, "annotations", name):
        num_entries += 1
        with left_out.judging(place):
            _add_annotation(images, _as_object(entry), categories, place)
    num_usable = num_entries - (left_out.reasons.total() - num_before)
    _require_some(num_usable, num_entries, f"{name}: 'annotations'", left_out)


def count_entries(content: Mapping[str, Any]) -> int:
    """The number of entries of an annotation file."""
    lists = (content.get(key) for key in ("images", "annotations", "categories"))
    return sum(len(entries) for entries in lists if isinstance(entries, list))


def _add_annotation(
    images: Mapping[Id, CocoImage],
    entry: Mapping[str, Any],
    categories: Mapping[Id, str],
    place: str,
) -> None:
    image_id = read_id(entry.get("image_id"), "image_id")
    if image_id not in images:
        raise BadValueError(ImportReason.UNKNOWN_IMAGE, f"there is no image {shown(image_id)}")
    caption = entry.get("caption")
    is_object = bool(categories) and bool(entry.get("bbox") or entry.get("segmentation"))
    has_caption = caption is not None and not (is_object and caption == "")
    captions = [read_text(caption, "caption")] if has_caption else []
    if is_object or caption is None:
        images[image_id].regions.append(_region(entry, categories, place))
    images[image_id].captions += captions


def _read_image_entries(
    content: Mapping[str, Any], name: str, left_out: LeftOut
) -> dict[Id, CocoImage]:
    images: dict[Id, CocoImage] = {}
    clashes: dict[Id, str] = {}  # id -> place: nobody knows which of the images is meant
    num_entries = 0
    for place, entry in _entries(content, "images", name):
        num_entries += 1
        with left_out.judging(place):
            image_id, image = _image(_as_object(entry))
            if images.setdefault(image_id, image).what != image.what:
                clashes[image_id] = place
    for image_id, place in clashes.items():
        names = f"{shown(images[image_id].file_name)} and another"
        detail = f"the image id {shown(image_id)} occurs twice, of {names}; both are left out"
        left_out.add(place, ImportReason.AMBIGUOUS_IMAGE, detail)
        del images[image_id]
    _require_some(len(images), num_entries, f"{name}: 'images'", left_out)
    return images


def _image(entry: Mapping[str, Any]) -> tuple[Id, CocoImage]:
    image_id = read_id(entry.get("id"), "id")
    width, height = (
        read_whole(entry.get("width"), "width"),
        read_whole(entry.get("height"), "height"),
    )
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise BadValueError(ImportReason.BAD_SIZE, f"an image of {width} x {height} pixels")
    name = entry.get("file_name") or _name_in_address(entry.get("coco_url"))
    if not isinstance(name, str) or not name.strip():
        raise BadValueError(ImportReason.BAD_FILE_NAME, f"'file_name' is {shown(name)}, not a text")
    safe_path(name)
    return image_id, CocoImage(record_number(image_id), name, width, height)


def _name_in_address(url: Any) -> str | None:
    """`train2017/000000000009.jpg` of an address that ends so: LVIS has no other names."""
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) else None


def _categories(content: Mapping[str, Any], name: str, left_out: LeftOut) -> dict[Id, str]:
    names: dict[Id, str] = {}
    clashes: set[Id] = set()
    for place, value in _entries(content, "categories", name, required=False):
        with left_out.judging(place):
            entry = _as_object(value)
            category, text = read_id(entry.get("id"), "id"), read_text(entry.get("name"), "name")
            if names.setdefault(category, text) != text:
                clashes.add(category)
                raise BadValueError(
                    ImportReason.AMBIGUOUS_CATEGORY,
                    f"the category id {shown(category)} is {names[category]!r} and {text!r}",
                )
    return {category: text for category, text in names.items() if category not in clashes}


def _region(entry: Mapping[str, Any], categories: Mapping[Id, str], place: str) -> CocoRegion:
    category = read_id(entry.get("category_id"), "category_id")
    if category not in categories:
        known = "" if categories else "; the file names no categories"
        raise BadValueError(
            ImportReason.UNKNOWN_CATEGORY, f"there is no category {shown(category)}{known}"
        )
    return CocoRegion(
        name=categories[category],
        box_xywh=_box(entry.get("bbox"), entry.get("segmentation")),
        segmentation=entry.get("segmentation"),
        is_crowd=read_flag(entry.get("iscrowd"), "iscrowd"),
        place=place,
    )


def _box(box: Any, segmentation: Any) -> Box | None:
    if box in (None, []) and segmentation:
        return None
    numbers = read_numbers(box) if isinstance(box, list) and len(box) == 4 else None
    if numbers is None:
        raise BadValueError(
            ImportReason.BAD_BOX, f"'bbox' is {shown(box)}, not four numbers x, y, width, height"
        )
    x, y, width, height = numbers
    return x, y, width, height


def _entries(
    content: Mapping[str, Any], key: str, name: str, *, required: bool = True
) -> Iterator[tuple[str, Any]]:
    entries = content.get(key)
    if entries is None and not required:
        return
    if not isinstance(entries, list):
        raise InputError(f"{name} is not a COCO file: it has no list '{key}'")
    for number, entry in enumerate(entries):
        yield f"{name}: {key}[{number}]", entry


def _as_object(entry: Any) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        raise BadValueError(ImportReason.NO_OBJECT, f"is no object, but {shown(entry)}")
    return entry


def _require_some(num_usable: int, num_entries: int, what: str, left_out: LeftOut) -> None:
    if num_entries and num_usable <= 0:
        raise InputError(f"{what}: none of {num_entries} can be used: {left_out.first_of_each()}")
