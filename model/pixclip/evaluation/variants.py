"""The model and its baselines on the same weights, texts and decoded images.

- `model`: the image with the region's mask.
- `whole_image`: the image without a mask; all regions of an image get one embedding, so their
  ties count against it (see the protocol).
- `masked_crop`: the region cut out, what is around it replaced by the mean colour, no mask.
- `mask_conv_only`: the vision weights that training began with, under the checkpoint's mask
  convolution and adaptor: what the convolution brings while the rest of the tower stays.

Legend: B regions, U images, C = 3, H = W = side of the model's square, D embedding width.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pixclip.data.samples import Sample
from pixclip.evaluation.benchmark import Benchmark, BenchmarkBuilder, Embedded
from pixclip.evaluation.protocol import EvaluationError
from pixclip.evaluation.results import MODEL
from pixclip.masks import Mask, decode_mask
from pixclip.model import PixClip
from pixclip.preprocess import Preprocess
from pixclip.vision.tower import VisionTower, build_vision_tower

WHOLE_IMAGE, MASKED_CROP, MASK_CONV_ONLY = "whole_image", "masked_crop", "mask_conv_only"
BASELINES = (WHOLE_IMAGE, MASKED_CROP, MASK_CONV_ONLY)
MASK_EMBED = "mask_embed."


@dataclass(frozen=True)
class Pictures:
    """The tensors of some images and all their regions."""

    images_UCHW: Tensor
    masks_B1HW: Tensor
    crops_BCHW: Tensor
    image_index_B: Tensor


class AnyVariants(Protocol):
    """Ways of embedding regions that are compared; `Pictures` are whatever they need."""

    sees_crops: bool  # the model is given a region cut out, not the image and a mask

    def asked_of(self, sample: Sample) -> Sample:
        """A sample with the regions that are asked about."""
        ...

    def prepare(self, samples: Sequence[Sample]) -> Any:
        """The tensors of some images and all their regions."""
        ...

    def embed(self, pictures: Any) -> dict[str, Embedded]:
        """The embeddings of every variant by its name."""
        ...


class Variants:
    """Embeds regions in every way that is compared."""

    sees_crops = False

    def __init__(self, model: PixClip, parent: PixClip) -> None:
        """Takes the model that is evaluated and the one its training began with.

        Raises:
            EvaluationError: they differ in architecture.
        """
        self._tower = model.vision
        self._parent_tower = parent_with_mask_conv(model.vision, parent.vision)
        self._preprocess = model.preprocess
        self._device = next(model.vision.parameters()).device

    def asked_of(self, sample: Sample) -> Sample:
        """All regions are asked about."""
        return sample

    def prepare(self, samples: Sequence[Sample]) -> Pictures:
        """Decode each image once for all variants."""
        images, masks, crops, index = [], [], [], []
        for place, sample in enumerate(samples):
            image = sample.image()
            images.append(self._preprocess.image(image))
            for region in sample.regions:
                mask = decode_mask(region.mask)
                masks.append(self._preprocess.mask(mask))
                crop = masked_crop(self._preprocess, image, mask)
                crops.append(self._preprocess.image(crop, squash=True))
                index.append(place)
        return Pictures(
            torch.stack(images).to(self._device),
            torch.stack(masks).to(self._device),
            torch.stack(crops).to(self._device),
            torch.tensor(index, device=self._device),
        )

    @torch.inference_mode()
    def embed(self, pictures: Pictures) -> dict[str, Embedded]:
        """All variants' embeddings of some images and their regions."""
        whole_UD = self._whole(self._tower, pictures.images_UCHW)
        return {
            MODEL: Embedded(self._regions(self._tower, pictures), whole_UD),
            WHOLE_IMAGE: Embedded(whole_UD[pictures.image_index_B]),
            MASKED_CROP: Embedded(self._whole(self._tower, pictures.crops_BCHW)),
            MASK_CONV_ONLY: Embedded(
                self._regions(self._parent_tower, pictures),
                self._whole(self._parent_tower, pictures.images_UCHW),
            ),
        }

    def _regions(self, tower: VisionTower, pictures: Pictures) -> Tensor:
        tokens_BNW = tower.tokens_of_regions(
            pictures.images_UCHW, pictures.masks_B1HW, pictures.image_index_B
        )
        return F.normalize(tower.encode(tokens_BNW)[0].float(), dim=-1)

    def _whole(self, tower: VisionTower, images_BCHW: Tensor) -> Tensor:
        full_B1HW = (
            self._preprocess.full_mask().to(self._device).expand(len(images_BCHW), -1, -1, -1)
        )
        return F.normalize(tower(images_BCHW, full_B1HW).float(), dim=-1)


def masked_crop(preprocess: Preprocess, image: Image.Image, mask: Mask) -> Image.Image:
    """The region cut out of its image; pixels outside the mask [H, W] take the mean colour."""
    crop, inside = preprocess.crop(image, mask)
    pixels = np.array(crop)
    pixels[~inside] = np.round(255 * np.array(preprocess.config.mean)).astype(np.uint8)
    return Image.fromarray(pixels)


def parent_with_mask_conv(tower: VisionTower, parent: VisionTower) -> VisionTower:
    """The parent's tower under the mask convolution of `tower`.

    Raises:
        EvaluationError: the two differ in architecture.
    """
    own, others = tower.state_dict(), parent.state_dict()
    mixed = {name: value for name, value in others.items() if not name.startswith(MASK_EMBED)}
    mixed |= {name: value for name, value in own.items() if name.startswith(MASK_EMBED)}
    shapes, wanted = ({n: v.shape for n, v in state.items()} for state in (mixed, own))
    if shapes != wanted or tower.config.kind != parent.config.kind:
        raise EvaluationError(
            f"the parent's vision tower {parent.config} is no parent of {tower.config}; "
            "give the checkpoint that training began with"
        )
    made = build_vision_tower(tower.config)
    made.load_state_dict(mixed)
    return made.to(next(tower.parameters()).device).eval()


def embed_benchmark(
    variants: "AnyVariants",
    samples: Iterable[Sample],
    *,
    batch_size: int,
    on_regions: Callable[[int], object],
) -> tuple[Benchmark, dict[str, Embedded]]:
    """Embed every region and image of the samples, about `batch_size` regions at a time.

    Tells `on_regions` how many regions each batch finished.

    Raises:
        EvaluationError: there are no samples.
    """
    builder = BenchmarkBuilder()
    parts: list[dict[str, Embedded]] = []
    for batch in _batches(map(variants.asked_of, samples), batch_size):
        for sample in batch:
            builder.add(sample)
        parts.append(variants.embed(variants.prepare(batch)))
        on_regions(sum(len(sample.regions) for sample in batch))
    if not parts:
        raise EvaluationError("the split holds no samples; pack a data set with a benchmark")
    return builder.build(), {name: _join([part[name] for part in parts]) for name in parts[0]}


def _batches(samples: Iterable[Sample], batch_size: int) -> Iterable[list[Sample]]:
    batch: list[Sample] = []
    for sample in samples:
        batch.append(sample)
        if sum(len(item.regions) for item in batch) >= batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _join(parts: Sequence[Embedded]) -> Embedded:
    images = [part.images_UD for part in parts if part.images_UD is not None]
    regions_RD = torch.cat([part.regions_RD for part in parts])
    return Embedded(regions_RD, torch.cat(images) if images else None)
