"""Images, masks and crops become tensors here, for training and inference alike.

A mask becomes the share of every output pixel that lies inside it, exactly (no sampling), so
that a region of one pixel does not vanish. Images are squashed to the square by a bicubic filter
with antialiasing, as the public evaluations do.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pixclip.config import PreprocessConfig
from pixclip.masks import Box, Mask, mask_box

# Legend: B = masks or images, S = side of the model's square, P = patches; H, W = a mask's sides.
ROUNDING = 1e-4  # of a pixel, so that a size computed from a scale never falls below S
Pixels = npt.NDArray[np.uint8]  # [H, W, 3]
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
        image_13hw = torch.from_numpy(np.ascontiguousarray(pixels_hw3)).permute(2, 0, 1)[None]
        size = self.image_size_px
        wanted: dict[str, Any] = {"size": (size, size)}
        if sides and sides != pixels_hw3.shape[:2]:
            wanted = {"scale_factor": [(size + ROUNDING) / side for side in sides]}
        squashed = F.interpolate(image_13hw, mode="bicubic", antialias=True, **wanted)
        return squashed[0].contiguous()

    def cover(self, mask: Mask) -> Tensor:
        """The share of every output pixel that lies inside a mask, float16 [1, S, S].

        Half precision keeps 1 exact and tiny shares above 0, and halves what workers send.
        """
        return torch.from_numpy(area_share(mask, self.image_size_px)).half()[None]

    def normalise_pixels(self, pixels: Tensor) -> Tensor:
        """uint8 [..., 3, S, S] to float32 with the configured mean and deviation."""
        mean, std = (
            torch.tensor(values, device=pixels.device)[:, None, None]
            for values in (self.config.mean, self.config.std)
        )
        return pixels.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)

    def normalise_cover(self, cover: Tensor) -> Tensor:
        """Shares [..., 1, S, S] to float32 with the configured mean and deviation."""
        share = cover.to(torch.float32, copy=True)
        return share.sub_(self.config.mask_mean).div_(self.config.mask_std)


def patch_coverage(cover_b1ss: Tensor, patch_size_px: int) -> Tensor:
    """The share of every patch inside the masks, float32 [B, P], from the shares of pixels."""
    return F.avg_pool2d(cover_b1ss.float(), patch_size_px).flatten(1)


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


def area_share(mask: Mask, size_px: int) -> npt.NDArray[np.float32]:
    """The share of every pixel of a square [S, S] that a mask [H, W], laid over it, covers.

    A mask is constant inside its pixels, so linear interpolation of its summed-area table gives
    exact areas, growing or shrinking, and only the mask's box need be looked at.
    """
    share = np.zeros((size_px, size_px), dtype=np.float32)
    if not mask.any():
        return share
    x1, y1, x2, y2 = map(int, mask_box(mask))
    box = np.ascontiguousarray(mask[y1:y2, x1:x2]).view(np.uint8)
    rows, edges_y = _edges(y1, y2, mask.shape[0], size_px)
    columns, edges_x = _edges(x1, x2, mask.shape[1], size_px)
    strips = np.diff(_at(cv2.integral(box, sdepth=cv2.CV_64F), edges_y, axis=0), axis=0)
    areas = np.diff(_at(strips, edges_x, axis=1), axis=1)
    areas /= (mask.shape[0] / size_px) * (mask.shape[1] / size_px)
    share[rows, columns] = np.clip(areas, 0, 1, out=areas)  # rounding leaves -1e-16
    return share


def _edges(start: int, stop: int, side: int, size: int) -> tuple[slice, Sums]:
    """The output pixels that touch a box's side, and their edges counted from the box's start."""
    first, last = start * size // side, -(-stop * size // side)
    edges = np.arange(first, last + 1) * side / size - start
    return slice(first, last), np.clip(edges, 0, stop - start)


def _at(table: Sums, places: Sums, axis: int) -> Sums:
    """The rows or columns of a table at fractional places, linearly between neighbours.

    Without a needless copy: this is done for every region of every batch.
    """
    below = np.minimum(places.astype(np.intp), table.shape[axis] - 2)
    first: Sums = table.take(below, axis)
    found: Sums = table.take(below + 1, axis)
    found -= first
    found *= np.expand_dims(places - below, 1 - axis)
    found += first
    return found
