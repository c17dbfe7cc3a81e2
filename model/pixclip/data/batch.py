"""Batches: packed small where workers send them, unpacked to what the model reads."""

from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict

import torch
from torch import Tensor

from pixclip.preprocess import Preprocess, patch_coverage

# Legend: B = regions, U = distinct images, C = 3, H = W = side of the model's square, P = patches,
# E = width of the language model.


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


def unpack(
    packed: PackedBatch, preprocess: Preprocess, patch_size_px: int, device: torch.device | str
) -> Batch:
    """The batch on a device; what is small is sent and grows there."""

    def send(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    crops, crop_covers = packed["crops_BCHW"], packed["crop_covers_B1HW"]
    covers_B1HW = send(packed["covers_B1HW"])
    return Batch(
        images_UCHW=preprocess.normalise_pixels(send(packed["images_UCHW"])),
        image_index_B=send(packed["image_index_B"]),
        masks_B1HW=preprocess.normalise_cover(covers_B1HW),
        crops_BCHW=None if crops is None else preprocess.normalise_pixels(send(crops)),
        crop_masks_B1HW=(
            None if crop_covers is None else preprocess.normalise_cover(send(crop_covers))
        ),
        coverage_BP=patch_coverage(covers_B1HW, patch_size_px),
        texts_BE=send(packed["texts_BE"]),
        text_ids_B=send(packed["text_ids_B"]),
        is_full_image_B=send(packed["is_full_image_B"]),
        region_ids=packed["region_ids"],
    )
