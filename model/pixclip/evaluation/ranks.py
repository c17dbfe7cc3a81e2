"""Ranks of the right candidates, in bounded memory.

Legend: Q questions, I candidates, D width of the embeddings.
"""

import torch
from torch import Tensor

from pixclip.evaluation.errors import EvaluationError
from pixclip.evaluation.protocol import TIE_TOLERANCE

MAX_SCORES = 2**23  # similarities held at a time: 32 MB and some masks


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
    if not torch.isin(labels_Q, labels_I).all():
        raise EvaluationError("a question has no right candidate in its pool")
    labels_Q, labels_I = labels_Q.to(questions_QD.device), labels_I.to(questions_QD.device)
    rows = max(1, MAX_SCORES // len(candidates_ID))
    parts = [
        _ranks(questions @ candidates_ID.T, labels[:, None] == labels_I)
        for questions, labels in zip(
            torch.split(questions_QD, rows), torch.split(labels_Q, rows), strict=True
        )
    ]
    return torch.cat(parts).cpu() if parts else torch.empty(0, dtype=torch.int64)


def _ranks(scores_QI: Tensor, is_right_QI: Tensor) -> Tensor:
    best_Q1 = scores_QI.masked_fill(~is_right_QI, -torch.inf).amax(dim=1, keepdim=True)
    is_ahead_QI = (scores_QI >= best_Q1 - TIE_TOLERANCE) & ~is_right_QI
    return 1 + is_ahead_QI.sum(dim=1)


def best_candidates(
    questions_QD: Tensor, candidates_ID: Tensor, number: int
) -> tuple[Tensor, Tensor]:
    """Similarities and places of each question's best candidates, best first; [Q, number] each."""
    found = (questions_QD @ candidates_ID.T).topk(min(number, len(candidates_ID)), dim=1)
    return found.values.cpu(), found.indices.cpu()
