"""Batches: packed small where workers send them, unpacked to what the model reads."""

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixclip.preprocess import Preprocess, patch_coverage

# Legend: B = regions, U = distinct images, C = 3, H = W = side of the model's square, P = patches,
# E = width of the language model.

Lent = weakref.ReferenceType[npt.NDArray[np.uint8]]


class PackedBatch(TypedDict):
    """What a worker makes: a third of the bytes of a `Batch`."""

    images_UCHW: Tensor  # uint8
    image_index_B: Tensor
    covers_B1HW: Tensor  # float16, share of every pixel inside the mask
    crops_BCHW: Tensor | None  # uint8
    crop_covers_B1HW: Tensor | None  # float16
    texts_BE: Tensor
    text_ids_B: Tensor
    is_full_image_B: Tensor
    region_ids: list[str]


@dataclass(frozen=True)
class Batch:
    """One rank's part of a step. Floats are float32, normalised as the model's config says."""

    images_UCHW: Tensor
    image_index_B: Tensor  # int64: which of the images a region is in
    masks_B1HW: Tensor
    crops_BCHW: Tensor | None  # I' of eq. 4; the image itself for a full-image sample
    crop_masks_B1HW: Tensor | None  # M'
    coverage_BP: Tensor  # share of every patch inside the mask (eq. 5)
    texts_BE: Tensor  # cached embeddings of the frozen language model
    text_ids_B: Tensor  # int64: equal for equal texts
    is_full_image_B: Tensor  # bool: the mask is everything, the text the image's caption
    region_ids: list[str]

    @property
    def num_samples(self) -> int:
        """The number of regions, whole images among them."""
        return len(self.image_index_B)

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


class Buffers:
    """Memory of batches that nobody holds any more, for the next ones.

    Fresh memory of a batch's size is given back to the system and taken from it again each time,
    and the first touch of its pages takes longer than the arithmetic on them.
    """

    def __init__(self) -> None:
        # With what a tensor holds as long as it lives.
        self._lent: list[tuple[npt.NDArray[np.uint8], Lent]] = []

    def take(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor of anything on the CPU, in memory that no other living tensor has."""
        num_bytes = math.prod(shape) * dtype.itemsize
        memory = self._find(num_bytes)
        held = memory[:num_bytes]
        self._lent.append((memory, weakref.ref(held)))
        return torch.from_numpy(held).view(dtype).reshape(tuple(shape))

    def _find(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        """The smallest free memory that is large enough, else new one instead of a free one."""
        free = [one for one in self._lent if one[1]() is None]
        free.sort(key=lambda one: one[0].nbytes)
        found = next((one for one in free if one[0].nbytes >= num_bytes), None)
        gone = found or (free[-1] if free else None)
        self._lent = [one for one in self._lent if one is not gone]
        return found[0] if found else np.empty(num_bytes, dtype=np.uint8)


def unpack(
    packed: PackedBatch,
    preprocess: Preprocess,
    patch_size_px: int,
    device: torch.device | str,
    buffers: Buffers,
) -> Batch:
    """The batch on a device; what is small is sent and grows there."""

    def send(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    def grow(normalise: Callable[[Tensor, Tensor | None], Tensor], tensor: Tensor) -> Tensor:
        sent = send(tensor)
        is_here = sent.device.type == "cpu"
        return normalise(sent, buffers.take(sent.shape, torch.float32) if is_here else None)

    crops, crop_covers = packed["crops_BCHW"], packed["crop_covers_B1HW"]
    covers_B1HW = send(packed["covers_B1HW"])
    pixels, covers = preprocess.normalise_pixels, preprocess.normalise_cover
    return Batch(
        images_UCHW=grow(pixels, packed["images_UCHW"]),
        image_index_B=send(packed["image_index_B"]),
        masks_B1HW=grow(covers, covers_B1HW),
        crops_BCHW=None if crops is None else grow(pixels, crops),
        crop_masks_B1HW=None if crop_covers is None else grow(covers, crop_covers),
        coverage_BP=patch_coverage(covers_B1HW, patch_size_px),
        texts_BE=send(packed["texts_BE"]),
        text_ids_B=send(packed["text_ids_B"]),
        is_full_image_B=send(packed["is_full_image_B"]),
        region_ids=packed["region_ids"],
    )
