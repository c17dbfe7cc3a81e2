"""Ranks of the right candidates, in bounded memory.

Legend: Q questions, I candidates, D width of the embeddings.
"""

import torch
from torch import Tensor

from pixclip.evaluation.protocol import (
    TIE_TOLERANCE,
    EvaluationError,
)

QUESTIONS_PER_BLOCK, CANDIDATES_PER_BLOCK = 1024, 8192  # 32 MB of similarities


def retrieval_ranks(
    questions_QD: Tensor, candidates_ID: Tensor, labels_Q: Tensor, labels_I: Tensor
) -> Tensor:
    """Each question's rank of its best right candidate, 1 = first; [Q] int64 on the CPU.

    A candidate is right if it has the question's label. Wrong candidates that are as similar as
    the best right one (within `TIE_TOLERANCE`) count as ahead of it: a model gains nothing by
    embedding everything alike. The full matrix of similarities is never held.

    Raises:
        EvaluationError: an embedding is not finite, or a question has no right candidate.
    """
    if not (torch.isfinite(questions_QD).all() and torch.isfinite(candidates_ID).all()):
        raise EvaluationError("embeddings hold NaN or infinity; the checkpoint is damaged")
    parts = []
    order_I = labels_I.argsort()
    for start in range(0, len(questions_QD), QUESTIONS_PER_BLOCK):
        rows = slice(start, start + QUESTIONS_PER_BLOCK)
        right = _right_pairs(labels_Q[rows], labels_I, order_I).to(questions_QD.device)
        parts.append(1 + _count_ahead(questions_QD[rows], candidates_ID, right))
    return torch.cat(parts).cpu() if parts else torch.empty(0, dtype=torch.int64)


def _right_pairs(labels_Q: Tensor, labels_I: Tensor, order_I: Tensor) -> Tensor:
    """Places of questions and of their right candidates, [2, pairs]."""
    sorted_I = labels_I[order_I]
    starts_Q = torch.searchsorted(sorted_I, labels_Q)
    counts_Q = torch.searchsorted(sorted_I, labels_Q, right=True) - starts_Q
    if (counts_Q == 0).any():
        raise EvaluationError("a question has no right candidate in its pool")
    questions = torch.arange(len(labels_Q)).repeat_interleave(counts_Q)
    first = (counts_Q.cumsum(0) - counts_Q)[questions]
    within = torch.arange(len(questions)) - first
    return torch.stack([questions, order_I[starts_Q[questions] + within]])


def _count_ahead(questions_QD: Tensor, candidates_ID: Tensor, right: Tensor) -> Tensor:
    """The number of wrong candidates ahead of each question's best right one; [Q]."""
    asked, found = right
    scores = (questions_QD[asked] * candidates_ID[found]).sum(dim=1)
    best_Q = torch.full_like(questions_QD[:, 0], -torch.inf).scatter_reduce(
        0, asked, scores, "amax"
    )
    ahead_Q = torch.zeros(len(questions_QD), dtype=torch.int64, device=questions_QD.device)
    for start in range(0, len(candidates_ID), CANDIDATES_PER_BLOCK):
        scores_QI = questions_QD @ candidates_ID[start : start + CANDIDATES_PER_BLOCK].T
        is_here = (found >= start) & (found < start + CANDIDATES_PER_BLOCK)
        scores_QI[asked[is_here], found[is_here] - start] = -torch.inf
        is_ahead_QI = scores_QI >= best_Q[:, None] - TIE_TOLERANCE
        ahead_Q += is_ahead_QI.sum(dim=1, dtype=torch.int32)
    return ahead_Q


def best_candidates(
    questions_QD: Tensor, candidates_ID: Tensor, number: int
) -> tuple[Tensor, Tensor]:
    """Similarities and places of each question's best candidates, best first; [Q, number] each."""
    found = (questions_QD @ candidates_ID.T).topk(min(number, len(candidates_ID)), dim=1)
    return found.values.cpu(), found.indices.cpu()
