"""One sample of LongGRIT: an image with the masks and texts of its regions.

`Fields` takes values of a JSON object by kind, or refuses them by name.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pixclip.data.errors import DataError
from pixclip.data.layout import OBJECTS, PARTS, WHOLE_IMAGE, WHOLE_IMAGES, WHOLE_OBJECT
from pixclip.images import DEFAULT_MAX_PIXELS, ImageError, Pixels, read_pixels
from pixclip.json_files import parse_json, shown
from pixclip.masks import Box, Rle


@dataclass(frozen=True)
class Region:
    """A region with its mask, which has the image's size, and what is said of it."""

    region_id: str
    mask: Rle
    box_xyxy: Box  # pixels
    phrase: str
    object_caption: str
    context_caption: str
    long_caption: str
    short_caption: str
    box_source: str = (
        ""  # "image" of the region that is the image itself; else where its box is from
    )
    hard_negatives: tuple[str, ...] = ()  # captions that differ in one attribute and are wrong

    @property
    def kind(self) -> str:
        """One of `KINDS`; a region whose source tells nothing of its box is an object."""
        known = {"": OBJECTS, WHOLE_OBJECT: OBJECTS, WHOLE_IMAGE: WHOLE_IMAGES}
        return known.get(self.box_source, PARTS)


@dataclass(frozen=True)
class Sample:
    """An image, encoded, with its regions."""

    shard: str
    key: str
    image_id: str
    caption: str  # of the whole image
    width_px: int
    height_px: int
    subset: str
    regions: tuple[Region, ...]
    jpeg: bytes
    # What a describer said of the whole image; "" where nobody was asked.
    long_caption: str = ""
    short_caption: str = ""

    @property
    def place(self) -> str:
        """Where the sample is, for messages."""
        return f"shard {self.shard}, sample {self.key}"

    def image(self) -> Image.Image:
        """The RGB image.

        Raises:
            DataError: as `pixels`.
        """
        return Image.fromarray(self.pixels())

    def pixels(self, shrink: int = 1) -> Pixels:
        """The RGB image as uint8 [H, W, 3], with sides of 1/`shrink` (1, 2, 4 or 8), rounded up.

        Raises:
            DataError: it cannot be decoded or has another size than the sample says.
        """
        try:
            pixels = read_pixels(self.jpeg, shrink=shrink)
        except ImageError as error:
            raise DataError(f"{self.place}: the image cannot be decoded: {error}") from error
        expected = -(-self.width_px // shrink), -(-self.height_px // shrink)
        height_px, width_px, _ = pixels.shape
        if (width_px, height_px) != expected:
            raise DataError(
                f"{self.place}: the image has {width_px} x {height_px} pixels, "
                f"its sample says {expected[0]} x {expected[1]}"
            )
        return pixels


def parse_sample(shard: str, key: str, description: bytes, jpeg: bytes) -> Sample:
    """A sample from the members of its shard.

    Raises:
        DataError: the description is damaged, a mask is of another size than the image, or the
            image would be larger than any that is opened.
    """
    place = f"shard {shard}, sample {key}"
    try:
        fields = Fields(parse_json(description), "")
        width_px, height_px = _sides(fields, place)
        sample = Sample(
            shard=shard,
            key=key,
            image_id=fields.text("image_id"),
            caption=fields.text("caption"),
            width_px=width_px,
            height_px=height_px,
            subset=fields.text("subset"),
            regions=tuple(map(_parse_region, fields.sections("regions"))),
            jpeg=jpeg,
            long_caption=fields.text("long_caption", default=""),
            short_caption=fields.text("short_caption", default=""),
        )
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{place}: the description is damaged: {error}") from error
    _check_masks(sample)
    return sample


class Fields:
    """An object of JSON; `path` is where it is in its file, for messages."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{path or 'the whole'} must be an object, got {shown(value)}")
        self._fields, self._path = value, path

    def any(self, name: str) -> Any:
        """A value of any kind.

        Raises:
            ValueError: it is missing.
        """
        if name not in self._fields:
            raise ValueError(f"{self._place(name)} is missing")
        return self._fields[name]

    def text(self, name: str, default: str | None = None) -> str:
        """A text of whole characters.

        Raises:
            ValueError: it is missing and has no default, is no text, or holds half a surrogate
                pair.
        """
        value = self._fields.get(name, default) if default is not None else self.any(name)
        if not isinstance(value, str):
            raise self._error(name, "a text", value)
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise self._error(name, "Unicode without half characters", value) from None
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; none if it is missing.

        Raises:
            ValueError: it is no list of texts.
        """
        value = self._fields.get(name, [])
        if not isinstance(value, list):
            raise self._error(name, "a list of texts", value)
        place = self._place(name)
        return tuple(
            Fields({str(number): text}, place).text(str(number))
            for number, text in enumerate(value)
        )

    def wholes(self, name: str, count: int) -> list[int]:
        """A list of so many whole numbers.

        Raises:
            ValueError: it is missing or is none.
        """
        value = self.any(name)
        if not _is_list_of(value, count) or any(type(number) is not int for number in value):
            raise self._error(name, f"{count} whole numbers", value)
        return list(value)

    def numbers(self, name: str, count: int) -> list[float]:
        """A list of so many finite numbers.

        Raises:
            ValueError: it is missing or is none.
        """
        value = self.any(name)
        if not _is_list_of(value, count) or not all(map(_is_finite, value)):
            raise self._error(name, f"{count} finite numbers", value)
        return list(value)

    def section(self, name: str) -> "Fields":
        """An object inside.

        Raises:
            ValueError: it is missing or is none.
        """
        return Fields(self.any(name), self._place(name))

    def sections(self, name: str) -> "Iterator[Fields]":
        """The objects of a list.

        Raises:
            ValueError: it is missing or is none.
        """
        value = self.any(name)
        if not isinstance(value, list):
            raise self._error(name, "a list", value)
        for number, item in enumerate(value):
            yield Fields(item, f"{self._place(name)}[{number}]")

    def _error(self, name: str, wanted: str, value: object) -> ValueError:
        return ValueError(f"{self._place(name)} must be {wanted}, got {shown(value)}")

    def _place(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name


def _sides(fields: Fields, place: str) -> tuple[int, int]:
    """Before anything is decoded: a mask of a few bytes can be as large as its size says."""
    sides = fields.any("width_px"), fields.any("height_px")
    is_image = all(type(side) is int and side > 0 for side in sides)
    if not is_image or sides[0] * sides[1] > DEFAULT_MAX_PIXELS:
        raise DataError(
            f"{place}: no image has {shown(sides[0])} x {shown(sides[1])} pixels here; "
            f"the limit is {DEFAULT_MAX_PIXELS} in all"
        )
    return sides


def _check_masks(sample: Sample) -> None:
    for region in sample.regions:
        if (region.mask.height_px, region.mask.width_px) != (sample.height_px, sample.width_px):
            raise DataError(
                f"{sample.place}: region {region.region_id} has a mask of "
                f"{region.mask.width_px} x {region.mask.height_px} pixels for an image of "
                f"{sample.width_px} x {sample.height_px}"
            )


def _parse_region(fields: Fields) -> Region:
    mask = fields.section("mask")
    height_px, width_px = mask.wholes("size", 2)
    x1, y1, x2, y2 = fields.numbers("box_xyxy", 4)
    return Region(
        region_id=fields.text("region_id"),
        mask=Rle(height_px, width_px, mask.text("counts")),
        box_xyxy=(x1, y1, x2, y2),
        phrase=fields.text("phrase"),
        object_caption=fields.text("object_caption"),
        context_caption=fields.text("context_caption"),
        long_caption=fields.text("long_caption"),
        short_caption=fields.text("short_caption"),
        box_source=fields.text("box_source", default=""),
        hard_negatives=fields.texts("hard_negatives"),
    )


def _is_list_of(value: object, count: int) -> bool:
    return isinstance(value, list) and len(value) == count


def _is_finite(number: object) -> bool:
    if type(number) is int:
        return abs(number) < 2**63
    return type(number) is float and math.isfinite(number)
