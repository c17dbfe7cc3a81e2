"""Contrast of two sides of a batch over all ranks (paper, eq. 2 and 3), in bounded memory.

Shapes: b = samples of this rank, B = samples of all ranks, c = rows of a chunk, D = width,
k = regions that may have wrong captions, m = wrong captions there are.

Every loss is the mean over all ranks' samples of what this rank's samples contribute: averaging
it over ranks gives the loss of the whole batch, and so do its gradients.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pixclip.distributed import gather_rows, num_ranks, rank, sum_over_ranks
from pixclip.training.config import LN_100


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
        ids_b: samples with equal ids are no wrong answers for each other; None: all are. With
            several ids a sample, [b, k], those that have one of them in common.
        is_valid_b: samples that take part, as anchor and as answer; None: all. With none at all
            the loss is 0.
        label_smoothing: share of the target that is spread over all permitted answers.
        chunk_size: rows in memory at a time.

    Returns:
        A scalar, in float32 at least, also inside autocast.
    """
    with torch.autocast(visual_bD.device.type, enabled=False):  # bf16 cannot tell near cosines
        return _contrastive_loss(
            unit(visual_bD), unit(text_bD), scale, ids_b, is_valid_b, label_smoothing, chunk_size
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
        is_other = ids_B[rows, None] != ids_B
        is_answer_cB = is_answer_cB & (is_other.all(dim=-1) if ids_B.dim() > 1 else is_other)
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


def hard_negative_loss(
    visual_kD: Tensor,
    texts_kD: Tensor,
    negatives_mD: Tensor,
    negative_of_m: Tensor,
    scale: Tensor,
) -> Tensor:
    """Cross entropy of each region's own caption among its wrong ones (FG-CLIP, arXiv:2505.05071).

    Args:
        visual_kD: embeddings of regions, not normalised.
        texts_kD: of their captions.
        negatives_mD: of their wrong captions.
        negative_of_m: which of the regions each of these belongs to.
        scale: factor of cosines, shape (1,).

    Returns:
        The mean over all ranks' regions that have a wrong caption; 0 if none has.
    """
    with torch.autocast(visual_kD.device.type, enabled=False):
        visual, texts, negatives = map(unit, (visual_kD, texts_kD, negatives_mD))
        own_k = scale * (visual * texts).sum(dim=-1)
        wrong_m = scale * (visual[negative_of_m] * negatives).sum(dim=-1)
        # The logarithm of sums of exponentials, a region: of its own and its wrong captions.
        most_k = own_k.detach().scatter_reduce(0, negative_of_m, wrong_m.detach(), "amax")
        sums_k = (own_k - most_k).exp()
        sums_k = sums_k.index_add(0, negative_of_m, (wrong_m - most_k[negative_of_m]).exp())
        has_wrong_k = torch.zeros_like(own_k, dtype=torch.bool)
        has_wrong_k[negative_of_m] = True
        total = ((most_k + sums_k.log() - own_k) * has_wrong_k).sum()
        return total * num_ranks() / sum_over_ranks(has_wrong_k.sum()).clamp(min=1)


def unit(side_bD: Tensor) -> Tensor:
    """Rows of length 1, in float32 at least."""
    return F.normalize(_exact(side_bD), dim=-1)


def _exact(side_bD: Tensor) -> Tensor:
    """In float32 at least."""
    return side_bD.to(torch.promote_types(side_bD.dtype, torch.float32))


def _all_true(like_bD: Tensor) -> Tensor:
    return torch.ones(len(like_bD), dtype=torch.bool, device=like_bD.device)


class _AtMostLn100(torch.autograd.Function):
    """The smaller of a value and ln 100; a value beyond it learns to come back, never to go on.

    A plain clamp gives no gradient there: one step too far, and the scale would stay for ever.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return value.clamp(max=LN_100)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (value,) = ctx.saved_tensors
        return torch.where(value > LN_100, gradients[0].clamp(min=0), gradients[0])


def scale_of(log_scale: Tensor) -> Tensor:
    """The factor of cosines; one that learns is bounded by 100, as in CLIP."""
    if not log_scale.requires_grad:
        return log_scale.exp()
    bounded: Tensor = _AtMostLn100.apply(log_scale)  # type: ignore[no-untyped-call]
    return bounded.exp()
