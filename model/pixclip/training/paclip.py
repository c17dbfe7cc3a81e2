"""The objective of PA-CLIP: captions of whole images, and of their parts (paper, eq. 1 to 5).

Shapes: b = images of this rank, k = parts there are, s = slots of parts, n = wrong captions of a
part at most, m = wrong captions there are, l = tokens, D = width of embeddings.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixclip.data.parts import PartsBatch
from pixclip.model import PixClip
from pixclip.preprocess import Preprocess
from pixclip.training.config import PartLossConfig
from pixclip.training.contrastive import contrastive_loss, hard_negative_loss, scale_of


class PaClipObjective(nn.Module):
    """From a batch to the losses of PA-CLIP.

    Images and the crops of all their parts go through the tower as one batch; short captions,
    captions of parts and wrong ones through the text tower as another, long captions by
    themselves, since all texts of a pass are filled up to its longest. A text or a part that a
    loss of weight 0 alone would need is not encoded.
    """

    full_mask_11HW: Tensor  # a buffer

    def __init__(self, model: PixClip, config: PartLossConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        vision = model.config.vision
        full_mask = Preprocess(vision.image_size_px, model.config.preprocess).full_mask()
        self.register_buffer("full_mask_11HW", full_mask[None], persistent=False)
        if config.part_temperature == "own":
            self.part_logit_scale = nn.Parameter(
                model.logit_scale.detach().clone(), requires_grad=model.logit_scale.requires_grad
            )

    def forward(self, batch: PartsBatch) -> dict[str, Tensor]:
        """The losses of eq. 1 by name, as this rank's share of them (see `contrastive.py`)."""
        config, scale = self.config, scale_of(self.model.logit_scale)
        images_bD, crops_kD = self._visual(batch)
        zero = images_bD.sum() * 0.0
        losses = {"short": zero, "long": zero, "part": zero, "hard": zero}
        shorts_bD, parts_kD, negatives_mD = self._short_texts(batch)
        if config.short:
            ids_b, has_b = batch.short_ids_b, batch.has_short_b
            losses["short"] = self._contrast(images_bD, shorts_bD, scale, ids_b, has_b)
        if config.long:
            long_bD = self.model.text(batch.long_bl)
            ids_b, has_b = batch.long_ids_b, batch.has_long_b
            losses["long"] = self._contrast(images_bD, long_bD, scale, ids_b, has_b)
        if config.alpha:
            part_scale = self._part_scale(scale)
            losses["part"] = self._contrast(
                _in_slots(crops_kD, batch),
                _in_slots(parts_kD, batch),
                part_scale,
                self._part_ids(batch),
                batch.has_part_s,
            )
            if config.hard:
                losses["hard"] = hard_negative_loss(
                    crops_kD, parts_kD, negatives_mD, batch.negative_of_m, part_scale
                )
        weights = {"short": config.short, "long": config.long, "part": config.alpha}
        weights["hard"] = config.hard
        total = sum((weights[name] * loss for name, loss in losses.items()), zero)
        return {"total": total, **losses}

    def _visual(self, batch: PartsBatch) -> tuple[Tensor, Tensor]:
        """Embeddings of images [b, D] and of parts [k, D], all in one pass (eq. 4)."""
        images_bCHW, tower = batch.images_bCHW, self.model.vision
        pixels = torch.cat([images_bCHW, batch.crops_kCHW]) if self.config.alpha else images_bCHW
        embeddings, _ = tower.encode(tower.tokens(pixels, self.full_mask_11HW))
        return embeddings[: len(images_bCHW)], embeddings[len(images_bCHW) :]

    def _short_texts(self, batch: PartsBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of short captions, captions of parts and wrong ones, as far as needed."""
        config = self.config
        wanted = (config.short > 0, config.alpha > 0, config.alpha > 0 and config.hard > 0)
        tokens = (batch.short_bl, batch.parts_kl, batch.negatives_ml)
        chosen = [
            texts if is_wanted else texts[:0]
            for texts, is_wanted in zip(tokens, wanted, strict=True)
        ]
        embedded = self.model.text(_joined(chosen))
        short, parts, negatives = embedded.split([len(texts) for texts in chosen])
        return short, parts, negatives

    def _contrast(
        self, visual: Tensor, texts: Tensor, scale: Tensor, ids: Tensor, is_there: Tensor
    ) -> Tensor:
        return contrastive_loss(
            visual,
            texts,
            scale,
            ids_b=ids if self.config.same_text == "ignore" else None,
            is_valid_b=is_there,
            label_smoothing=self.config.label_smoothing,
            chunk_size=self.config.chunk_size,
        )

    def _part_ids(self, batch: PartsBatch) -> Tensor:
        """Which parts are no wrong answers for each other: one text, or one part's two sides."""
        is_ignored = self.config.mirrored_parts == "ignore"
        return batch.part_ids_s2 if is_ignored else batch.part_ids_s2[:, 0]

    def _part_scale(self, scale: Tensor) -> Tensor:
        is_own = self.config.part_temperature == "own"
        return scale_of(self.part_logit_scale) if is_own else scale


def _in_slots(parts_kD: Tensor, batch: PartsBatch) -> Tensor:
    """Every rank's parts in as many rows [s, D], so that they can be gathered; others are 0."""
    slots_sD = parts_kD.new_zeros(len(batch.has_part_s), parts_kD.shape[1])
    return slots_sD.index_copy(0, batch.slots_k, parts_kD)


def _joined(texts: Sequence[Tensor]) -> Tensor:
    """Token ids of several lists of texts as one, filled up to the longest."""
    longest = max(one.shape[1] for one in texts)
    return torch.cat([F.pad(one, (0, longest - one.shape[1])) for one in texts])
