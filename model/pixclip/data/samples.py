"""One sample of LongGRIT: an image with the masks and texts of its regions."""

import json
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pixclip.data.errors import DataError
from pixclip.images import DEFAULT_MAX_PIXELS, ImageError, open_image
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

    @property
    def place(self) -> str:
        """Where the sample is, for messages."""
        return f"shard {self.shard}, sample {self.key}"

    def image(self, shrink: int = 1) -> Image.Image:
        """The RGB image, or a smaller one with sides of 1/`shrink` (2, 4 or 8), rounded up.

        Raises:
            DataError: it cannot be decoded or has another size than the sample says.
        """
        try:
            image = open_image(self.jpeg, shrink=shrink)
        except ImageError as error:
            raise DataError(f"{self.place}: the image cannot be decoded: {error}") from error
        expected = -(-self.width_px // shrink), -(-self.height_px // shrink)
        if image.size != expected:
            raise DataError(
                f"{self.place}: the image has {image.width} x {image.height} pixels, "
                f"its sample says {expected[0]} x {expected[1]}"
            )
        return image


def parse_sample(shard: str, key: str, description: bytes, jpeg: bytes) -> Sample:
    """A sample from the members of its shard.

    Raises:
        DataError: the description is damaged, a mask is of another size than the image, or the
            image would be larger than any that is opened.
    """
    try:
        data = json.loads(description)
        sample = Sample(
            shard=shard,
            key=key,
            image_id=data["image_id"],
            caption=data["caption"],
            width_px=data["width_px"],
            height_px=data["height_px"],
            subset=data["subset"],
            regions=tuple(map(_parse_region, data["regions"])),
            jpeg=jpeg,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"shard {shard}, sample {key}: the description is damaged: {error!r}"
        ) from error
    _check_sizes(sample)
    return sample


def _check_sizes(sample: Sample) -> None:
    """Before anything is decoded: a mask of a few bytes can be as large as its size says."""
    sides = sample.width_px, sample.height_px
    is_image = all(isinstance(side, int) and side > 0 for side in sides)
    if not is_image or sides[0] * sides[1] > DEFAULT_MAX_PIXELS:
        raise DataError(
            f"{sample.place}: no image has {sides[0]} x {sides[1]} pixels here; "
            f"the limit is {DEFAULT_MAX_PIXELS} in all"
        )
    for region in sample.regions:
        if (region.mask.height_px, region.mask.width_px) != (sample.height_px, sample.width_px):
            raise DataError(
                f"{sample.place}: region {region.region_id} has a mask of "
                f"{region.mask.width_px} x {region.mask.height_px} pixels for an image of "
                f"{sample.width_px} x {sample.height_px}"
            )


def _parse_region(data: dict[str, Any]) -> Region:
    (height_px, width_px), counts = data["mask"]["size"], data["mask"]["counts"]
    x1, y1, x2, y2 = data["box_xyxy"]
    return Region(
        region_id=data["region_id"],
        mask=Rle(height_px, width_px, counts),
        box_xyxy=(x1, y1, x2, y2),
        phrase=data["phrase"],
        object_caption=data["object_caption"],
        context_caption=data["context_caption"],
        long_caption=data["long_caption"],
        short_caption=data["short_caption"],
    )
