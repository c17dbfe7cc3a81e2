"""A model of parts and its baselines, on the same texts and decoded images.

- `model`: the part cut out of the original image, as PA-CLIP sees it (its eq. 4).
- `whole_image`: the image; all parts of it get one embedding, so their ties count against it.
- `parent`: the crop again, in the model that training began with, whose own text tower asks.

Legend: B parts, U images, C = 3, H = W = side of the model's square, D embedding width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pixclip.data.layout import WHOLE_IMAGE as WHOLE_IMAGE_BOX
from pixclip.data.parts import image_window
from pixclip.data.pictures import window_of
from pixclip.data.samples import Sample
from pixclip.evaluation.benchmark import Embedded
from pixclip.evaluation.protocol import EvaluationError
from pixclip.evaluation.results import MODEL
from pixclip.evaluation.variants import WHOLE_IMAGE
from pixclip.images import Pixels
from pixclip.model import PixClip
from pixclip.preprocess import Window

PARENT = "parent"


@dataclass(frozen=True)
class PartPictures:
    """The tensors of some images and all their parts."""

    images_UCHW: Tensor
    crops_BCHW: Tensor
    image_index_B: Tensor


class PartVariants:
    """Embeds parts in every way that is compared."""

    sees_crops = True

    def __init__(self, model: PixClip, parent: PixClip) -> None:
        """Takes the model that is evaluated and the one its training began with.

        Raises:
            EvaluationError: they see images differently.
        """
        if model.config.preprocess != parent.config.preprocess:
            raise EvaluationError(
                "model and parent prepare images differently, so their numbers do not compare; "
                "give the checkpoint that training began with"
            )
        self._model, self._parent = model, parent
        self._preprocess, self._device = model.preprocess, model.logit_scale.device

    def asked_of(self, sample: Sample) -> Sample:
        """A sample with its parts alone; its caption is the long one of the whole image."""
        parts = tuple(r for r in sample.regions if r.box_source != WHOLE_IMAGE_BOX)
        return replace(sample, regions=parts, caption=sample.long_caption)

    def prepare(self, samples: Sequence[Sample]) -> PartPictures:
        """Decode each image once for all variants."""
        images, crops, index = [], [], []
        for place, sample in enumerate(samples):
            pixels = sample.pixels()
            images.append(self._cut(pixels, image_window(sample)))
            for region in sample.regions:
                window = window_of(region.box_xyxy, self._preprocess, sample)
                crops.append(self._cut(pixels, window))
                index.append(place)
        size = self._preprocess.image_size_px
        return PartPictures(
            torch.stack(images).to(self._device),
            (torch.stack(crops) if crops else torch.empty(0, 3, size, size)).to(self._device),
            torch.tensor(index, dtype=torch.int64, device=self._device),
        )

    @torch.inference_mode()
    def embed(self, pictures: PartPictures) -> dict[str, Embedded]:
        """All variants' embeddings of some images and their parts."""
        whole_UD = self._see(self._model, pictures.images_UCHW)
        parent_UD = self._see(self._parent, pictures.images_UCHW)
        return {
            MODEL: Embedded(self._see(self._model, pictures.crops_BCHW), whole_UD),
            WHOLE_IMAGE: Embedded(whole_UD[pictures.image_index_B]),
            PARENT: Embedded(self._see(self._parent, pictures.crops_BCHW), parent_UD),
        }

    def _cut(self, pixels: Pixels, window: Window) -> Tensor:
        x1, y1, x2, y2 = window
        return self._preprocess.normalise_pixels(self._preprocess.pixels(pixels[y1:y2, x1:x2]))

    def _see(self, model: PixClip, images_BCHW: Tensor) -> Tensor:
        full_11HW = self._preprocess.full_mask()[None].to(self._device)
        tower = model.vision
        embeddings_BD, _ = tower.encode(tower.tokens(images_BCHW, full_11HW))
        return F.normalize(embeddings_BD.float(), dim=-1)
