"""Draw and crop what a prompt asks for: the same region gives the same JPEG bytes."""

import base64
import io
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from components.data.describe.scenes import Region
from components.data.llm.prompt import PictureKind, PromptHead
from pixclip.masks import Box, Mask, clip_box, decode_mask, mask_box

RENDERING = 1  # part of a request's hash: count up when other pixels come out of this file
LINE_COLOUR = (255, 0, 255)  # magenta is rare in photographs
NEUTRAL_GREY = (127, 127, 127)
MARGIN = 0.08  # of the crop's longer side, so that the object's edge can be seen
MIN_MARGIN_PX = 8
Pixels = npt.NDArray[np.uint8]


class Pictures:
    """The pictures of one image's regions; the image is decoded once, when it is first needed."""

    def __init__(self, load_image: Callable[[], Image.Image]) -> None:
        self._load_image = load_image
        self._image: Image.Image | None = None
        self._scaled: dict[int, Image.Image] = {}
        self._urls: dict[tuple[str | int, ...], str] = {}
        self._lock = threading.Lock()  # regions of an image are rendered in several threads

    def urls(self, region: Region, head: PromptHead) -> list[str]:
        """The pictures of a region as data URLs.

        Raises:
            ImageError: the image cannot be used.
        """
        mask = decode_mask(region.rle)
        return [self._url(kind, region, mask, head) for kind in head.pictures]

    def _url(self, kind: PictureKind, region: Region, mask: Mask, head: PromptHead) -> str:
        look = (head.min_side_px, head.max_side_px, head.jpeg_quality)
        key = (region.region_id, kind, *look)  # stages that ask for the same picture share it
        if key not in self._urls:
            self._urls[key] = data_url(self._draw(kind, region, mask, head), head)
        return self._urls[key]

    def _draw(self, kind: PictureKind, region: Region, mask: Mask, head: PromptHead) -> Image.Image:
        image = self._full()
        if kind in ("crop", "crop_with_outline", "masked_crop"):
            box = mask_box(mask) if mask.any() else region.box_xyxy
            return _draw_crop(kind, image, _as_image(mask), _with_margin(box, image), head)
        picture = self._whole(head.max_side_px).copy()
        if kind == "image_with_box":
            scale = picture.width / image.width
            _draw_box(picture, tuple(side * scale for side in region.box_xyxy))
        elif kind == "image_with_outline":
            _draw_outline(picture, _as_image(mask).resize(picture.size, Image.Resampling.BILINEAR))
        return picture

    def _full(self) -> Image.Image:
        with self._lock:
            if self._image is None:
                self._image = self._load_image()
            return self._image

    def _whole(self, max_side_px: int) -> Image.Image:
        image = self._full()
        with self._lock:
            if max_side_px not in self._scaled:
                self._scaled[max_side_px] = _fit(image, 1, max_side_px)
            return self._scaled[max_side_px]


def data_url(picture: Image.Image, head: PromptHead) -> str:
    """A picture as a JPEG data URL."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=head.jpeg_quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _draw_crop(
    kind: PictureKind, image: Image.Image, mask: Image.Image, box: Box, head: PromptHead
) -> Image.Image:
    x1, y1, x2, y2 = (round(side) for side in box)
    corners = (x1, y1, x2, y2)
    crop = _fit(image.crop(corners), head.min_side_px, head.max_side_px)
    inside = mask.crop(corners).resize(crop.size, Image.Resampling.BILINEAR)
    if kind == "masked_crop":
        return Image.composite(crop, Image.new("RGB", crop.size, NEUTRAL_GREY), inside)
    if kind == "crop_with_outline":
        _draw_outline(crop, inside)
    return crop


def _fit(image: Image.Image, min_side_px: int, max_side_px: int) -> Image.Image:
    """A copy whose longer side is within the limits."""
    longer = max(image.size)
    scale = min(max(longer, min_side_px), max_side_px) / longer
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    return image.copy() if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def _with_margin(box: Box, image: Image.Image) -> Box:
    x1, y1, x2, y2 = box
    margin = max(MARGIN * max(x2 - x1, y2 - y1), MIN_MARGIN_PX)
    grown = (x1 - margin, y1 - margin, x2 + margin, y2 + margin)
    return clip_box(grown, image.height, image.width)


def _as_image(mask: Mask) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255)


def _line_width(picture: Image.Image) -> int:
    return max(max(picture.size) // 256, 2)


def _draw_box(picture: Image.Image, box: tuple[float, ...]) -> None:
    x1, y1, x2, y2 = (round(side) for side in box)
    corners = (x1, y1, max(x2 - 1, x1), max(y2 - 1, y1))
    ImageDraw.Draw(picture).rectangle(corners, outline=LINE_COLOUR, width=_line_width(picture))


def _draw_outline(picture: Image.Image, mask: Image.Image) -> None:
    """Draw a line just outside the mask, so that it hides nothing of the object."""
    inside = mask.point(lambda value: 255 if value > 127 else 0)
    grown = inside.filter(ImageFilter.MaxFilter(2 * _line_width(picture) + 1))
    line: Pixels = np.asarray(grown) & ~np.asarray(inside)
    picture.paste(LINE_COLOUR, (0, 0), Image.fromarray(line))
