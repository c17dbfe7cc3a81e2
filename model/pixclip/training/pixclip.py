"""The objective of PixCLIP: three branches and their losses (paper, Fig. 2, eq. 2 to 7).

Shapes: b = samples of this rank, m = some of them, n = their wrong captions, U = distinct images,
P = patches, W = width of the tower, D = width of embeddings.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pixclip.data.batch import Batch
from pixclip.model import PixClip
from pixclip.preprocess import Preprocess
from pixclip.training.config import LossConfig
from pixclip.training.contrastive import (
    contrastive_loss,
    hard_negative_loss,
    positives_loss,
    scale_of,
)

Branches = tuple[Tensor, Tensor | None, Tensor | None]  # regions, crops, pooled: each [b, D]


class PixClipObjective(nn.Module):
    """From a batch to the losses of PixCLIP, by its three branches in one forward pass.

    The images with their masks, the crops and the whole images go through the tower as one batch;
    an image's patches are embedded once for all its regions, and its dense features are made once.

    With `micro_batch_size`, the tower sees at most so many regions at a time and keeps nothing
    of them but embeddings; the backward pass runs each part anew (GradCache, arXiv:2101.06983).
    Loss and gradients are those of the whole batch. 0: the whole batch at once.
    """

    full_mask_1HW: Tensor  # a buffer

    def __init__(self, model: PixClip, config: LossConfig, micro_batch_size: int = 0) -> None:
        super().__init__()
        self.model, self.config, self.micro_batch_size = model, config, micro_batch_size
        vision = model.config.vision
        full_mask = Preprocess(vision.image_size_px, model.config.preprocess).full_mask()
        self.register_buffer("full_mask_1HW", full_mask, persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of eq. 7 by name, as this rank's share of them (see `contrastive.py`)."""
        regions_bD, crops_bD, pooled_bD = self._visual(batch)
        texts_bD, negatives_nD = self._texts(batch)
        return total_loss(
            Embeddings(
                regions_bD, texts_bD, crops_bD, pooled_bD, negatives_nD, batch.negative_of_M
            ),
            scale_of(self.model.logit_scale),
            text_ids_b=batch.text_ids_B,
            is_full_image_b=batch.is_full_image_B,
            config=self.config,
        )

    def _texts(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Embeddings of texts and, where they have a weight, of wrong ones, all in one pass."""
        if not self.config.hard:
            return self.model.adaptor(batch.texts_BE), None
        assert batch.negatives_ME is not None, "the loader was not asked for wrong captions"
        embedded = self.model.adaptor(torch.cat([batch.texts_BE, batch.negatives_ME]))
        return embedded[: len(batch.texts_BE)], embedded[len(batch.texts_BE) :]

    def _visual(self, batch: Batch) -> Branches:
        size = self.micro_batch_size
        if not size or len(batch.image_index_B) <= size:
            return self._embed(batch, torch.arange(len(batch.image_index_B)))
        parts = list(_split(batch.image_index_B, size))
        made = [checkpoint(self._embed, batch, rows_m, use_reentrant=False) for rows_m in parts]
        order_b = torch.cat(parts).argsort()
        regions, crops, pooled = (
            None if column[0] is None else torch.cat(column)[order_b.to(column[0].device)]
            for column in zip(*made, strict=True)
        )
        assert regions is not None
        return regions, crops, pooled

    def _embed(self, batch: Batch, rows_m: Tensor) -> Branches:
        """The visual embeddings of some of a batch's regions."""
        tower = self.model.vision
        device = batch.images_UCHW.device
        rows_m = rows_m.to(device)
        images_u, image_index_m = torch.unique(batch.image_index_B[rows_m], return_inverse=True)
        has_crop_m = ~batch.is_full_image_B[rows_m]
        masks_n1HW, image_index_n = batch.masks_B1HW[rows_m], image_index_m
        num_dense = len(images_u) if self.config.beta else 0
        if num_dense:
            full_u1HW = self.full_mask_1HW.expand(num_dense, -1, -1, -1)
            masks_n1HW = torch.cat([masks_n1HW, full_u1HW])
            image_index_n = torch.cat([image_index_n, torch.arange(num_dense, device=device)])
        tokens = tower.tokens_of_regions(batch.images_UCHW[images_u], masks_n1HW, image_index_n)
        if self.config.alpha:
            tokens = torch.cat([self._crop_tokens(batch, rows_m[has_crop_m]), tokens])
        embeddings_nD, patches_uPW = tower.encode(tokens, num_dense)
        regions_mD = embeddings_nD[-len(rows_m) :]
        crops_mD = pooled_mD = None
        if self.config.alpha:
            # Rows of full-image samples stay 0; no loss looks at them.
            crops_mD = torch.zeros_like(regions_mD)
            crops_mD[has_crop_m] = embeddings_nD[: -len(rows_m)]
        if num_dense:
            pooled_mW = pool_regions(
                patches_uPW,
                image_index_m,
                batch.coverage_BP[rows_m],
                self.config.coverage_threshold,
            )
            pooled_mD = tower.project(pooled_mW)
        return regions_mD, crops_mD, pooled_mD

    def _crop_tokens(self, batch: Batch, rows_m: Tensor) -> Tensor:
        assert batch.crops_BCHW is not None, "the loader was not asked for crops"
        assert batch.crop_masks_B1HW is not None
        return self.model.vision.tokens(batch.crops_BCHW[rows_m], batch.crop_masks_B1HW[rows_m])


def _split(image_index_b: Tensor, size: int) -> Iterator[Tensor]:
    """Rows of a batch in parts of at most `size`, the regions of an image side by side."""
    yield from torch.split(image_index_b.argsort(stable=True), size)


@dataclass(frozen=True)
class Embeddings:
    """What the model makes of a batch, not normalised; a branch that is off has none."""

    regions_bD: Tensor  # e_v: image and mask
    texts_bD: Tensor  # e_t
    crops_bD: Tensor | None = None  # v_c: crop and its mask
    pooled_bD: Tensor | None = None  # f'_v: dense features of the whole image, pooled by the mask
    negatives_nD: Tensor | None = None  # of wrong captions
    negative_of_n: Tensor | None = None  # which of the samples each of these belongs to


def total_loss(
    embeddings: Embeddings,
    scale: Tensor,
    *,
    text_ids_b: Tensor,
    is_full_image_b: Tensor,
    config: LossConfig,
) -> dict[str, Tensor]:
    """L = L_CL + alpha L_FC + beta L_LG (eq. 7); full-image samples count in L_CL alone.

    To which wrong captions add `hard` times the cross entropy of each region's caption among them.

    Args:
        embeddings: of this rank's samples.
        scale: factor of cosines, 1 / tau of eq. 3, shape (1,).
        text_ids_b: equal numbers for equal texts.
        is_full_image_b: samples whose mask is the whole image.
        config: weights, targets and options.

    Returns:
        `total` and its parts `cl`, `fc`, `lg`, of which a branch that is off is 0; and `hard`, if
        it has a weight.
    """
    ids = text_ids_b if config.same_text == "ignore" else None
    is_region_b = ~is_full_image_b

    def contrast(visual_bD: Tensor, target_bD: Tensor, is_valid_b: Tensor | None = None) -> Tensor:
        return contrastive_loss(
            visual_bD,
            target_bD,
            scale,
            ids_b=ids,
            is_valid_b=is_valid_b,
            label_smoothing=config.label_smoothing,
            chunk_size=config.chunk_size,
        )

    regions_bD, texts_bD = embeddings.regions_bD, embeddings.texts_bD
    cl = contrast(regions_bD, texts_bD)
    fc = lg = torch.zeros_like(cl)
    if embeddings.crops_bD is not None and config.fc_target == "region_positives":
        fc = positives_loss(embeddings.crops_bD, regions_bD, is_region_b)
    elif embeddings.crops_bD is not None:
        target_bD = texts_bD if config.fc_target == "text" else regions_bD
        fc = contrast(embeddings.crops_bD, target_bD, is_region_b)
    if embeddings.pooled_bD is not None:
        target_bD = texts_bD if config.lg_target == "text" else regions_bD
        target_bD = target_bD.detach() if config.lg_stop_gradient else target_bD
        lg = contrast(embeddings.pooled_bD, target_bD, is_region_b)
    losses = {"total": cl + config.alpha * fc + config.beta * lg, "cl": cl, "fc": fc, "lg": lg}
    if config.hard:
        negatives_nD, of_n = embeddings.negatives_nD, embeddings.negative_of_n
        assert negatives_nD is not None
        assert of_n is not None
        losses["hard"] = hard_negative_loss(regions_bD, texts_bD, negatives_nD, of_n, scale)
        losses["total"] = losses["total"] + config.hard * losses["hard"]
    return losses


def pool_regions(
    patches_UPW: Tensor, image_index_b: Tensor, coverage_bP: Tensor, threshold: float
) -> Tensor:
    """The mean of the patches that each mask covers by more than a threshold (eq. 5).

    A mask that covers no patch so far takes the patch it covers most (the first of several).

    Args:
        patches_UPW: dense features of each distinct image, after the tower's last norm.
        image_index_b: which image each mask belongs to.
        coverage_bP: the share of each patch inside each mask.
        threshold: tau of eq. 5.

    Returns:
        [b, W], before the projection.
    """
    is_inside_bP = coverage_bP > threshold
    best_bP = F.one_hot(coverage_bP.argmax(dim=1), coverage_bP.shape[1]).bool()
    is_inside_bP = torch.where(is_inside_bP.any(dim=1, keepdim=True), is_inside_bP, best_bP)
    weights_bP = is_inside_bP / is_inside_bP.sum(dim=1, keepdim=True)
    # One matrix product an image for all its masks: the masks of an image get slots 0, 1, …
    is_same_bb = image_index_b[:, None] == image_index_b
    slot_b = is_same_bb.tril(-1).sum(dim=1)
    num_slots = int(slot_b.max()) + 1
    weights_URP = patches_UPW.new_zeros(len(patches_UPW), num_slots, patches_UPW.shape[1])
    weights_URP[image_index_b, slot_b] = weights_bP.to(patches_UPW.dtype)
    return (weights_URP @ patches_UPW)[image_index_b, slot_b]
