"""Images, masks and crops become tensors here, for training and inference alike.

A mask becomes the share of every output pixel that lies inside it, exactly (no sampling), so
that a region of one pixel does not vanish. Images are squashed to the square by a bicubic filter
with antialiasing, as the public evaluations do.
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
from pixclip.masks import Box, Mask, Runs, mask_box

# Legend: B = masks or images, S = side of the model's square, P = patches; H, W = a mask's sides.
ROUNDING = 1e-4  # of a pixel, so that a size computed from a scale never falls below S
Share = npt.NDArray[np.float32]  # of pixels inside a mask
Sums = npt.NDArray[np.float64]  # of areas, from an edge on
Window = tuple[int, int, int, int]  # x1, y1, x2, y2 in whole pixels; x2 and y2 are exclusive


class Preprocess:
    """The transforms of one model; its settings are stored in the checkpoint."""

    def __init__(self, image_size_px: int, config: PreprocessConfig) -> None:
        self.image_size_px, self.config = image_size_px, config

    def image(self, image: Image.Image) -> Tensor:
        """An RGB image as the tower wants it, float32 [3, S, S]."""
        return self.normalise_pixels(self.pixels(np.array(image)))

    def mask(self, mask: Mask) -> Tensor:
        """A mask [H, W] of any size as the tower wants it, float32 [1, S, S]."""
        return self.normalise_cover(self.cover(mask))

    def full_mask(self) -> Tensor:
        """What `mask` gives for a mask that is true everywhere, float32 [1, S, S]."""
        size = self.image_size_px
        return self.normalise_cover(torch.ones(1, size, size, dtype=torch.float16))

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

    def cover(self, mask: Mask) -> Tensor:
        """The share of every output pixel that lies inside a mask, float16 [1, S, S].

        Half precision keeps 1 exact and tiny shares above 0, and halves what workers send.
        """
        return torch.from_numpy(area_share(mask, self.image_size_px)).half()[None]

    def write_cover(self, into: Tensor, areas: "MaskAreas", window: Window) -> None:
        """As `cover`, of a window that holds the mask, into a tensor of a batch."""
        places, shares = areas.shares(window, self.image_size_px)
        into.zero_()
        into[0][places] = torch.from_numpy(shares)

    def normalise_pixels(self, pixels: Tensor, into: Tensor | None = None) -> Tensor:
        """uint8 [..., 3, S, S] to float32 with the configured mean and deviation."""
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


def area_share(mask: Mask, size_px: int) -> Share:
    """The share of every pixel of a square [S, S] that a mask [H, W], laid over it, covers."""
    share = np.zeros((size_px, size_px), dtype=np.float32)
    if mask.any():
        height_px, width_px = mask.shape
        places, found = MaskAreas.of_mask(mask).shares((0, 0, width_px, height_px), size_px)
        share[places] = found
    return share


@dataclass(frozen=True)
class MaskAreas:
    """How much of a mask lies in any rectangle: the summed-area table of its box.

    A mask is constant inside its pixels, so linear interpolation of the table gives exact areas,
    growing or shrinking, and only the mask's box need be looked at.
    """

    box: Window
    table: npt.NDArray[np.int32]  # [h + 1, w + 1]

    @classmethod
    def of_mask(cls, mask: Mask) -> "MaskAreas":
        """The areas of a mask [H, W] that is not empty."""
        x1, y1, x2, y2 = box = _whole(mask_box(mask))
        inside = np.ascontiguousarray(mask[y1:y2, x1:x2]).view(np.uint8)
        return cls(box, cv2.integral(inside, sdepth=cv2.CV_32S))

    @classmethod
    def of_runs(cls, runs: Runs) -> "MaskAreas":
        """The areas of a mask that is not empty, without its pixels outside the box."""
        box = runs.box()
        inside = _transposed(runs.inside(box))
        return cls(box, cv2.integral(inside, sdepth=cv2.CV_32S))

    def shares(self, window: Window, size_px: int) -> tuple[tuple[slice, slice], Share]:
        """The share of every pixel that the mask covers in a square [S, S] laid over a window.

        The window holds the box. Given are the rows and columns that the box touches, and their
        shares [rows, columns]; all others are 0.
        """
        left, top, right, bottom = window
        x1, y1, x2, y2 = self.box
        rows, edges_y = _edges(y1 - top, y2 - top, bottom - top, size_px)
        columns, edges_x = _edges(x1 - left, x2 - left, right - left, size_px)
        strips = _transposed(_between(self.table, edges_y))  # [w + 1, rows]
        areas = _between(strips, edges_x)
        areas /= ((bottom - top) / size_px) * ((right - left) / size_px)
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

    Edges lie at fractional rows, where sums are interpolated linearly. Without a needless copy:
    this is done for every region of every batch.
    """
    below = np.minimum(edges.astype(np.intp), len(table) - 2)
    found = np.subtract(table[1:], table[:-1], dtype=np.float64).take(below, axis=0)
    found *= (edges - below)[:, None]
    found += table.take(below, axis=0)
    between: Sums = found[1:] - found[:-1]
    return between
