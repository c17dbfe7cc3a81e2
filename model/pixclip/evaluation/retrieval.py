"""Ranks of the right candidates, in bounded memory, and the metrics by name.

Legend: Q questions, I candidates, D width of the embeddings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixclip.evaluation.protocol import (
    ALL,
    SCENE_ACCURACY,
    TIE_TOLERANCE,
    TOPS,
    EvaluationError,
    Question,
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


Floats = npt.NDArray[np.float64]
Columns = Mapping[str, Floats]  # one value a question; NaN where a question was not asked
IN_SUBSET = "_in_subset"  # ending of the ranks among the candidates of the question's subset
REGION_QUESTIONS = (
    Question.MASK_TO_TEXT,
    Question.TEXT_TO_MASK,
    Question.SHORT_MASK_TO_TEXT,
    Question.SHORT_TEXT_TO_MASK,
)
IMAGE_QUESTIONS = (Question.IMAGE_TO_TEXT, Question.TEXT_TO_IMAGE)


@dataclass(frozen=True)
class Metric:
    """A share of right answers: of `column` in the table of regions or of images."""

    name: str
    table: Literal["samples", "images"]
    column: str
    top: int = 0  # last rank that counts as right; 0: the column itself says 1 or 0

    def column_for(self, subset: str) -> str:
        """The column whose candidates are those of the subset."""
        return self.column if subset == ALL or not self.top else self.column + IN_SUBSET

    def right(self, columns: Columns, subset: str) -> Floats:
        """1 for a right answer, 0 for a wrong one, NaN where nothing was asked; [rows]."""
        values = columns[self.column_for(subset)]
        return np.where(np.isnan(values), np.nan, values <= self.top) if self.top else values


def _recalls(
    table: Literal["samples", "images"], questions: tuple[Question, ...]
) -> tuple[Metric, ...]:
    return tuple(
        Metric(question.recall_at(top), table, question.rank, top)
        for question in questions
        for top in TOPS
    )


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(SCENE_ACCURACY, "samples", "scene_correct"),
        *_recalls("samples", REGION_QUESTIONS),
        *_recalls("images", IMAGE_QUESTIONS),
    )
}


def rows_of(subsets: npt.NDArray[np.str_], subset: str) -> npt.NDArray[np.bool_]:
    """Which rows belong to a subset, or to `all`; [rows]."""
    return np.ones(len(subsets), dtype=bool) if subset == ALL else subsets == subset
