"""Images, masks and crops become tensors here, for training and inference alike.

Unless a model says otherwise, a mask becomes the share of every output pixel that lies inside it,
exactly (no sampling), so that a region of one pixel does not vanish, and images are squashed to the
square by a bicubic filter with antialiasing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pixclip.config import PreprocessConfig
from pixclip.images import Pixels
from pixclip.masks import Box, Mask, Runs, SoftMask, mask_box

# Legend: B = masks or images, S = side of the model's square, P = patches; H, W = a mask's sides.
ROUNDING = 1e-4  # of a pixel, so that a size computed from a scale never falls below S
Share = npt.NDArray[np.float32]  # of pixels inside a mask
Sums = npt.NDArray[np.float64]  # of areas, from an edge on
Window = tuple[int, int, int, int]  # x1, y1, x2, y2 in whole pixels; x2 and y2 are exclusive


class Preprocess:
    """The transforms of one model; its settings are stored in the checkpoint."""

    def __init__(self, image_size_px: int, config: PreprocessConfig) -> None:
        self.image_size_px, self.config = image_size_px, config

    def image(self, image: Image.Image, *, squash: bool = False) -> Tensor:
        """An RGB image as the tower wants it, float32 [3, S, S].

        `squash`: all of it, whatever the model does with whole images, e.g. of a region's crop.
        """
        frame = self._frame(image.height, image.width, squash)
        is_whole = frame.window == (0, 0, *image.size)
        cut = image if is_whole else image.crop(frame.window)
        sides = (frame.height_px, frame.width_px)
        how: dict[str, Any] = {"mode": self.config.interpolation, "antialias": True}
        if self.config.resampler == "pillow":
            filter_ = Image.Resampling[self.config.interpolation.upper()]
            pixels_3hw = _channels_first(cut.resize(sides[::-1], filter_))[0]
        elif self.config.resampler == "torch":
            pixels_3hw = F.interpolate(_channels_first(cut), sides, **how)[0]
        else:
            pixels_3hw = F.interpolate(_channels_first(cut).float(), sides, **how)[0]
        return self.normalise_pixels(frame.middle(pixels_3hw, self.image_size_px))

    def mask(self, mask: Mask | SoftMask) -> Tensor:
        """A mask [H, W] of any size as the tower wants it, float32 [1, S, S]."""
        return self.normalise_cover(self.cover(mask))

    def require_trainable(self) -> None:
        """Refuse what the loader, which prepares images by itself, does not do.

        Raises:
            ValueError: names the settings and what they must be.
        """
        default = PreprocessConfig()
        names = ("resize", "interpolation", "resampler", "mask_resize")
        others = [name for name in names if getattr(self.config, name) != getattr(default, name)]
        if others:
            raise ValueError(
                "a model is trained with "
                + ", ".join(f"preprocess.{name}={getattr(default, name)}" for name in others)
                + ", and this one has others, which repeat a public evaluation; make it with "
                "init_model.preprocess empty"
            )

    def full_mask(self) -> Tensor:
        """What `mask` gives for a mask that is true everywhere, float32 [1, S, S]."""
        size = self.image_size_px
        return self.normalise_cover(torch.ones(1, size, size, dtype=torch.float16))

    def _frame(self, height_px: int, width_px: int, squash: bool) -> "Frame":
        mode = "squash" if squash else self.config.resize
        return find_frame(height_px, width_px, self.image_size_px, mode)

    def crop(self, image: Image.Image, mask: Mask) -> tuple[Image.Image, Mask]:
        """I' and M' of eq. 4: image and mask cut to the mask's box and the margin around it."""
        height_px, width_px = mask.shape
        window = crop_window(mask_box(mask), height_px, width_px, self.config.crop_margin)
        x1, y1, x2, y2 = window
        return image.crop(window), mask[y1:y2, x1:x2]

    def coverage(self, mask: Mask, patch_size_px: int) -> Tensor:
        """The share of every patch that lies inside a mask, float32 [P], row by row (eq. 5)."""
        return patch_coverage(self.cover(mask)[None], patch_size_px)[0]

    def pixels(self, pixels_hw3: Pixels, sides: tuple[float, float] | None = None) -> Tensor:
        """RGB bytes [H, W, 3] squashed to uint8 [3, S, S].

        The eight-bit filter of torch is five times faster than Pillow's, and within 1 of it where
        no side grows; where one does, they may differ by 2, and along sharp edges more where the
        other side shrinks. `sides` is the picture's
        height and width in pixels of the array where its last row or column is only partly filled
        (a JPEG decoded at half its size).
        """
        size = self.image_size_px
        squashed = torch.empty(3, size, size, dtype=torch.uint8)
        self.write_pixels(squashed, pixels_hw3, sides)
        return squashed

    def write_pixels(
        self, into: Tensor, pixels_hw3: Pixels, sides: tuple[float, float] | None = None
    ) -> None:
        """As `pixels`, into a tensor of a batch."""
        image_13hw = torch.from_numpy(np.ascontiguousarray(pixels_hw3)).permute(2, 0, 1)[None]
        size = self.image_size_px
        wanted: dict[str, Any] = {"size": (size, size)}
        if sides and sides != pixels_hw3.shape[:2]:
            wanted = {"scale_factor": [(size + ROUNDING) / side for side in sides]}
        into.copy_(F.interpolate(image_13hw, mode="bicubic", antialias=True, **wanted)[0])

    def cover(self, mask: Mask | SoftMask) -> Tensor:
        """The share of every output pixel that lies inside a mask, float16 [1, S, S].

        Half precision keeps 1 exact and tiny shares above 0, and halves what workers send. Float32
        where the mask's pixels are interpolated (preprocess.mask_resize), as public code does.
        """
        frame = self._frame(mask.shape[0], mask.shape[1], squash=False)
        x1, y1, x2, y2 = frame.window
        cut, sides = mask[y1:y2, x1:x2], (frame.height_px, frame.width_px)
        if self.config.mask_resize == "area":
            cover_hw = torch.from_numpy(area_share(cut, *sides)).half()
        else:
            values_11hw = torch.from_numpy(np.asarray(cut, dtype=np.float32))[None, None]
            cover_hw = F.interpolate(values_11hw, sides, mode="bilinear", antialias=True)[0, 0]
        return frame.middle(cover_hw[None], self.image_size_px)

    def write_cover(self, into: Tensor, areas: "MaskAreas", window: Window) -> None:
        """As `cover`, of a window that holds the mask, into a tensor of a batch."""
        places, shares = areas.shares(window, self.image_size_px, self.image_size_px)
        into.zero_()
        into[0][places] = torch.from_numpy(shares)

    def normalise_pixels(self, pixels: Tensor, into: Tensor | None = None) -> Tensor:
        """[..., 3, S, S] from 0 to 255 to float32 with the configured mean and deviation."""
        mean, std = (
            torch.tensor(values, device=pixels.device)[:, None, None]
            for values in (self.config.mean, self.config.std)
        )
        found = torch.empty_like(pixels, dtype=torch.float32) if into is None else into
        for part, place in _parts(pixels, found):
            place.copy_(part).div_(255).sub_(mean).div_(std)
        return found

    def normalise_cover(self, cover: Tensor, into: Tensor | None = None) -> Tensor:
        """Shares [..., 1, S, S] to float32 with the configured mean and deviation."""
        found = torch.empty_like(cover, dtype=torch.float32) if into is None else into
        for part, place in _parts(cover, found):
            place.copy_(part).sub_(self.config.mask_mean).div_(self.config.mask_std)
        return found


def _parts(source: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """An image after the other where a core computes: all passes over one stay in its cache."""
    if source.device.type != "cpu" or source.dim() < 4:
        return iter([(source, target)])
    return zip(source.flatten(0, -4), target.flatten(0, -4), strict=True)


def patch_coverage(cover_b1ss: Tensor, patch_size_px: int) -> Tensor:
    """The share of every patch inside the masks, float32 [B, P], from the shares of pixels."""
    if cover_b1ss.device.type != "cpu":
        return F.avg_pool2d(cover_b1ss.float(), patch_size_px).flatten(1)
    shares = [F.avg_pool2d(cover_1ss.float(), patch_size_px) for cover_1ss in cover_b1ss]
    return torch.stack(shares).flatten(1)


def crop_window(box: Box, height_px: int, width_px: int, margin: float) -> Window:
    """The box in whole pixels, with a margin in shares of its sides, inside the image."""
    x1, y1, x2, y2 = box
    margin_x, margin_y = margin * (x2 - x1), margin * (y2 - y1)
    return (
        max(0, int(np.floor(x1 - margin_x))),
        max(0, int(np.floor(y1 - margin_y))),
        min(width_px, int(np.ceil(x2 + margin_x))),
        min(height_px, int(np.ceil(y2 + margin_y))),
    )


@dataclass(frozen=True)
class Frame:
    """What of an image becomes a model's square: a window of it, resized, of which the middle."""

    window: Window
    height_px: int  # after resizing
    width_px: int

    def middle(self, resized: Tensor, size_px: int) -> Tensor:
        """The square [..., S, S] in the middle of [..., height_px, width_px]."""
        top, left = (round((side - size_px) / 2) for side in (self.height_px, self.width_px))
        return resized[..., top : top + size_px, left : left + size_px].contiguous()


def find_frame(height_px: int, width_px: int, size_px: int, mode: str) -> Frame:
    """The frame of an image by `PreprocessConfig.resize`, rounded as the public code rounds."""
    whole, short = (0, 0, width_px, height_px), min(height_px, width_px)
    if mode == "shortest_side":
        height, width = (size_px * side // short for side in (height_px, width_px))
        return Frame(whole, height, width)
    if mode == "center_square":
        x1, y1 = width_px // 2 - short // 2, height_px // 2 - short // 2
        return Frame((x1, y1, x1 + short, y1 + short), size_px, size_px)
    return Frame(whole, size_px, size_px)


def _channels_first(image: Image.Image) -> Tensor:
    """The bytes of an RGB image as a batch of one, [1, 3, H, W]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


def area_share(mask: Mask | SoftMask, height_px: int, width_px: int) -> Share:
    """The share of every pixel of a rectangle that a mask [H, W], laid over it, covers."""
    share = np.zeros((height_px, width_px), dtype=np.float32)
    if mask.any():
        window = (0, 0, mask.shape[1], mask.shape[0])
        places, found = MaskAreas.of_mask(mask).shares(window, height_px, width_px)
        share[places] = found
    return share


@dataclass(frozen=True)
class MaskAreas:
    """How much of a mask lies in any rectangle: the summed-area table of its box.

    A mask is constant inside its pixels, so linear interpolation of the table gives exact areas,
    growing or shrinking, and only the mask's box need be looked at.
    """

    box: Window
    table: npt.NDArray[np.int32] | Sums  # [h + 1, w + 1]

    @classmethod
    def of_mask(cls, mask: Mask | SoftMask) -> "MaskAreas":
        """The areas of a mask [H, W] that is not empty; of a soft one, sums of its values."""
        x1, y1, x2, y2 = box = _whole(mask_box(mask))
        inside = np.ascontiguousarray(mask[y1:y2, x1:x2])
        if inside.dtype == np.bool_:
            return cls(box, cv2.integral(inside.view(np.uint8), sdepth=cv2.CV_32S))
        return cls(box, cv2.integral(inside, sdepth=cv2.CV_64F))

    @classmethod
    def of_runs(cls, runs: Runs) -> "MaskAreas":
        """The areas of a mask that is not empty, without its pixels outside the box."""
        box = runs.box()
        inside = _transposed(runs.inside(box))
        return cls(box, cv2.integral(inside, sdepth=cv2.CV_32S))

    def shares(
        self, window: Window, height_px: int, width_px: int
    ) -> tuple[tuple[slice, slice], Share]:
        """The share of every pixel that the mask covers in a rectangle laid over a window.

        The window holds the box. Given are the rows and columns that the box touches, and their
        shares [rows, columns]; all others are 0.
        """
        left, top, right, bottom = window
        x1, y1, x2, y2 = self.box
        rows, edges_y = _edges(y1 - top, y2 - top, bottom - top, height_px)
        columns, edges_x = _edges(x1 - left, x2 - left, right - left, width_px)
        strips = _transposed(_between(self.table, edges_y))  # [w + 1, rows]
        areas = _between(strips, edges_x)
        areas /= ((bottom - top) / height_px) * ((right - left) / width_px)
        np.clip(areas, 0, 1, out=areas)  # rounding leaves -1e-16
        return (rows, columns), _transposed(areas.astype(np.float32))


def _whole(box: Box) -> Window:
    x1, y1, x2, y2 = map(int, box)
    return x1, y1, x2, y2


def _transposed(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[n, m] from [m, n], laid out anew: several times faster than NumPy."""
    return np.asarray(cv2.transpose(table)).reshape(table.shape[::-1])


def _edges(start: int, stop: int, side: int, size: int) -> tuple[slice, Sums]:
    """The output pixels that touch a box's side, and their edges counted from the box's start."""
    first, last = start * size // side, -(-stop * size // side)
    edges = np.arange(first, last + 1) * side / size - start
    return slice(first, last), np.clip(edges, 0, stop - start)


def _between(table: npt.NDArray[Any], edges: Sums) -> Sums:
    """What lies between neighbouring edges, from a table of sums up to each of its rows.

    Edges lie at fractional rows, where sums are interpolated linearly. Without a needless copy, and
    in whole numbers as long as that goes: this is done for every region of every batch.
    """
    below = np.minimum(edges.astype(np.intp), len(table) - 2)
    found = (table[1:] - table[:-1]).take(below, axis=0).astype(np.float64, copy=False)
    found *= (edges - below)[:, None]
    found += table.take(below, axis=0)
    between: Sums = found[1:] - found[:-1]
    return between
