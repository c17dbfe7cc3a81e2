"""One sample of LongGRIT: an image with the masks and texts of its regions."""

from dataclasses import dataclass

from PIL import Image

from pixclip.data.errors import DataError
from pixclip.data.fields import Fields
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
        )
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{place}: the description is damaged: {error}") from error
    _check_masks(sample)
    return sample


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
    )
