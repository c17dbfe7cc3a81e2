"""The losses of PixCLIP (paper, eq. 2 to 7).

Shapes: b = samples of this rank, B = samples of all ranks, U = distinct images, P = patches,
W = width of the tower, D = width of embeddings.

Every loss is the mean over all ranks' samples of what this rank's samples contribute: averaging
it over ranks gives the loss of the whole batch, and so do its gradients.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pixclip.distributed import gather_rows, num_ranks, rank, sum_over_ranks
from pixclip.training.config import LossConfig


@dataclass(frozen=True)
class Embeddings:
    """What the model makes of a batch, not normalised; a branch that is off has none."""

    regions_bD: Tensor  # e_v: image and mask
    texts_bD: Tensor  # e_t
    crops_bD: Tensor | None = None  # v_c: crop and its mask
    pooled_bD: Tensor | None = None  # f'_v: dense features of the whole image, pooled by the mask


@dataclass(frozen=True)
class Losses:
    """The total of eq. 7 and its parts; a branch that is off is 0."""

    total: Tensor
    cl: Tensor
    fc: Tensor
    lg: Tensor


def total_loss(
    embeddings: Embeddings,
    scale: Tensor,
    *,
    text_ids_b: Tensor,
    is_full_image_b: Tensor,
    config: LossConfig,
) -> Losses:
    """L = L_CL + alpha L_FC + beta L_LG (eq. 7); full-image samples count in L_CL alone.

    Args:
        embeddings: of this rank's samples.
        scale: factor of cosines, 1 / tau of eq. 3, shape (1,).
        text_ids_b: equal numbers for equal texts.
        is_full_image_b: samples whose mask is the whole image.
        config: weights, targets and options.
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
    return Losses(cl + config.alpha * fc + config.beta * lg, cl, fc, lg)


def contrastive_loss(
    visual_bD: Tensor,
    text_bD: Tensor,
    scale: Tensor,
    *,
    ids_b: Tensor | None = None,
    is_valid_b: Tensor | None = None,
    label_smoothing: float = 0.0,
    chunk_size: int = 1024,
) -> Tensor:
    """Symmetric cross entropy of cosines over the batch of all ranks (eq. 2 and 3).

    At most `chunk_size` rows of the B x B similarities are in memory at a time: the backward pass
    makes each chunk anew. The result does not depend on it.

    Args:
        visual_bD: one side, not normalised.
        text_bD: the other side; row i belongs to row i.
        scale: factor of cosines, shape (1,).
        ids_b: samples with equal ids are no wrong answers for each other; None: all are.
        is_valid_b: samples that take part, as anchor and as answer; None: all. With none at all
            the loss is 0.
        label_smoothing: share of the target that is spread over all permitted answers.
        chunk_size: rows in memory at a time.

    Returns:
        A scalar, in float32 at least, also inside autocast.
    """
    with torch.autocast(visual_bD.device.type, enabled=False):  # bf16 cannot tell near cosines
        return _contrastive_loss(
            _unit(visual_bD), _unit(text_bD), scale, ids_b, is_valid_b, label_smoothing, chunk_size
        )


def _contrastive_loss(
    visual_bD: Tensor,
    text_bD: Tensor,
    scale: Tensor,
    ids_b: Tensor | None,
    is_valid_b: Tensor | None,
    label_smoothing: float,
    chunk_size: int,
) -> Tensor:
    ids_B = None if ids_b is None else gather_rows(ids_b)
    is_valid_b = is_valid_b if is_valid_b is not None else _all_true(visual_bD)
    is_valid_B = gather_rows(is_valid_b)
    offset = rank() * len(visual_bD)
    total = visual_bD.new_zeros(())
    for anchors_bD, answers_bD in ((visual_bD, text_bD), (text_bD, visual_bD)):
        answers_BD = gather_rows(answers_bD)
        for start in range(0, len(anchors_bD), chunk_size):
            rows = slice(start, start + chunk_size)
            arguments = (anchors_bD[rows], answers_BD, scale, ids_B, is_valid_B, offset + start)
            if len(anchors_bD) <= chunk_size:
                total = total + _rows_loss(*arguments, label_smoothing)
            else:
                total = total + checkpoint(
                    _rows_loss, *arguments, label_smoothing, use_reentrant=False
                )
    return total * num_ranks() / (2 * is_valid_B.sum().clamp(min=1))


def _rows_loss(
    anchors_cD: Tensor,
    answers_BD: Tensor,
    scale: Tensor,
    ids_B: Tensor | None,
    is_valid_B: Tensor,
    start: int,
    label_smoothing: float,
) -> Tensor:
    """The summed cross entropy of the anchors `start`, `start + 1`, … among all answers."""
    rows = torch.arange(start, start + len(anchors_cD), device=anchors_cD.device)
    positions = torch.arange(len(answers_BD), device=anchors_cD.device)
    is_own_cB = rows[:, None] == positions
    # A row that takes no part keeps its own answer, so that no row is empty; its weight is 0.
    is_answer_cB = is_valid_B.expand_as(is_own_cB)
    if ids_B is not None:
        is_answer_cB = is_answer_cB & (ids_B[rows, None] != ids_B)
    is_answer_cB = is_answer_cB | is_own_cB
    logits_cB = (scale * (anchors_cD @ answers_BD.T)).masked_fill_(~is_answer_cB, -torch.inf)
    own_c = logits_cB.gather(1, rows[:, None])[:, 0]
    losses_c = logits_cB.logsumexp(dim=1) - (1 - label_smoothing) * own_c
    if label_smoothing:
        sums_c = logits_cB.masked_fill(~is_answer_cB, 0).sum(dim=1)
        losses_c = losses_c - label_smoothing * sums_c / is_answer_cB.sum(dim=1)
    return (losses_c * is_valid_B[rows]).sum()


def positives_loss(visual_bD: Tensor, target_bD: Tensor, is_valid_b: Tensor) -> Tensor:
    """The mean of 1 - cosine of matching pairs; no other sample is looked at."""
    distances_b = 1 - F.cosine_similarity(_exact(visual_bD), _exact(target_bD), dim=-1)
    num_valid = sum_over_ranks(is_valid_b.sum()).clamp(min=1)
    return (distances_b * is_valid_b).sum() * num_ranks() / num_valid


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


def _unit(side_bD: Tensor) -> Tensor:
    return F.normalize(_exact(side_bD), dim=-1)


def _exact(side_bD: Tensor) -> Tensor:
    """In float32 at least."""
    return side_bD.to(torch.promote_types(side_bD.dtype, torch.float32))


def _all_true(like_bD: Tensor) -> Tensor:
    return torch.ones(len(like_bD), dtype=torch.bool, device=like_bD.device)
