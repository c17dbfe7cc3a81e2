"""What the loader hands to the training loop."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's part of a step.

    B = samples (regions, and whole images with their caption), U = their distinct images,
    C = 3, H = W = side of the model's square, P = patches, E = width of the language model.
    """

    images_UCHW: Tensor  # normalised float32
    image_index_B: Tensor  # int64: the image of each sample, a row of images_UCHW
    masks_B1HW: Tensor  # normalised float32
    crops_BCHW: Tensor | None  # I' of eq. 4; of a full-image sample the image itself
    crop_masks_B1HW: Tensor | None  # M'
    coverage_BP: Tensor  # share of each patch inside the mask, for eq. 5
    texts_BE: Tensor  # pooled states of the language model
    text_ids_B: Tensor  # int64, equal for equal captions
    is_full_image_B: Tensor  # bool
    region_ids: list[str]

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on a device."""
        moved = {
            field.name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for field in fields(self)
            for value in (getattr(self, field.name),)
        }
        return Batch(**moved)
