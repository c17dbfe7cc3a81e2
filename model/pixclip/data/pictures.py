"""Masks of an image's regions, and its pixels, decoded once and no larger than they are needed."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pixclip.data.config import ReadConfig
from pixclip.data.errors import DataError
from pixclip.data.samples import Region, Sample
from pixclip.images import Pixels
from pixclip.masks import Box, read_runs
from pixclip.preprocess import MaskAreas, Preprocess, Window, crop_window

JPEG_START = b"\xff\xd8"
SHRINKS = (8, 4, 2)  # what a JPEG decoder can leave out
# How many times the pixels of the model's square a shrunk image keeps along each side.
SPARES = {"spare": 2, "tight": 1}


class Views:
    """An image and windows of it, to be decoded once.

    A JPEG of which image and windows all have pixels to spare (`ReadConfig.decoding`) is decoded at
    1/2, 1/4 or 1/8; a window then grows to whole decoded pixels. At full size, image and windows
    are bit for bit what `Preprocess` makes for inference.
    """

    def __init__(
        self, preprocess: Preprocess, sample: Sample, windows: Sequence[Window], config: ReadConfig
    ) -> None:
        self._preprocess, self._sample, self._decoding = preprocess, sample, config.decoding
        self.shrink = self._find_shrink(windows)
        self.windows = [_widen(window, self.shrink, sample) for window in windows]

    def decode(self) -> "DecodedViews":
        """The pixels of all of them.

        Raises:
            DataError: the image cannot be decoded.
        """
        return DecodedViews(self._preprocess, self, self._sample.pixels(self.shrink))

    @property
    def whole(self) -> Window:
        """The window that is the whole image."""
        return 0, 0, self._sample.width_px, self._sample.height_px

    def _find_shrink(self, windows: Sequence[Window]) -> int:
        if self._decoding == "whole" or not self._sample.jpeg.startswith(JPEG_START):
            return 1
        sides = [self._sample.width_px, self._sample.height_px]
        sides += [side for x1, y1, x2, y2 in windows for side in (x2 - x1, y2 - y1)]
        wanted = SPARES[self._decoding] * self._preprocess.image_size_px
        return next((k for k in SHRINKS if min(sides) >= k * wanted), 1)


@dataclass(frozen=True)
class DecodedViews:
    """The pixels of an image, for it and its windows."""

    preprocess: Preprocess
    views: Views
    pixels: Pixels

    def write_image(self, into: Tensor) -> None:
        """The whole image, uint8 [3, S, S]."""
        self._cut(into, self.views.whole)

    def write_window(self, into: Tensor, place: int) -> None:
        """One of the windows, uint8 [3, S, S]."""
        self._cut(into, self.views.windows[place])

    def _cut(self, into: Tensor, window: Window) -> None:
        """A window of the image, which starts at a decoded pixel but may end inside one."""
        x1, y1, x2, y2 = window
        k = self.views.shrink
        pixels = self.pixels[y1 // k : -(-y2 // k), x1 // k : -(-x2 // k)]
        self.preprocess.write_pixels(into, pixels, ((y2 - y1) / k, (x2 - x1) / k))


class Masks:
    """The masks of some regions of an image, which need none of its pixels.

    They are bit for bit what `Preprocess` makes for inference.

    Raises:
        DataError: a mask is damaged or empty.
    """

    def __init__(self, preprocess: Preprocess, sample: Sample, regions: Sequence[Region]) -> None:
        self._preprocess = preprocess
        self._areas = [_areas(sample, region) for region in regions]
        self.windows = [window_of(areas.box, preprocess, sample) for areas in self._areas]

    def write_cover(self, into: Tensor, place: int, window: Window) -> None:
        """The mask of a region in a window that holds it, float16 [1, S, S]."""
        self._preprocess.write_cover(into, self._areas[place], window)


def window_of(box: Box, preprocess: Preprocess, sample: Sample) -> Window:
    """What is cut out of an image for a box: whole pixels, and the model's margin around it."""
    margin = preprocess.config.crop_margin
    return crop_window(box, sample.height_px, sample.width_px, margin)


def _widen(window: Window, shrink: int, sample: Sample) -> Window:
    x1, y1, x2, y2 = window
    return (
        x1 // shrink * shrink,
        y1 // shrink * shrink,
        min(-(-x2 // shrink) * shrink, sample.width_px),
        min(-(-y2 // shrink) * shrink, sample.height_px),
    )


def _areas(sample: Sample, region: Region) -> MaskAreas:
    try:
        runs = read_runs(region.mask)
    except ValueError as error:
        raise DataError(f"{sample.place}, region {region.region_id}: {error}") from error
    if not runs:
        raise DataError(f"{sample.place}, region {region.region_id}: the mask is empty")
    return MaskAreas.of_runs(runs)
