"""The metrics by name: what of the tables of ranks each counts. Needs no PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pixclip.data.layout import KINDS
from pixclip.evaluation.protocol import ALL, SCENE_ACCURACY, TOPS, Question

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, Floats]  # one value a question; NaN where a question was not asked
# Endings of the ranks among the candidates of the question's subset, or of its kind of regions.
IN_SUBSET, IN_KIND = "_in_subset", "_in_kind"
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
        if subset == ALL or not self.top:
            return self.column
        return self.column + (IN_KIND if subset in KINDS else IN_SUBSET)

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
