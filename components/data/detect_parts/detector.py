"""What a detector is, and how its scores become boxes of parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixclip.masks import Box

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Detection:
    """A box in pixels of the image, and which of the queries it answers."""

    query: int
    score: float
    box: Box


class Detector(Protocol):
    """Finds what texts name, in images."""

    source: str  # model, revision and thresholds, as the rows' `box_source` says them

    def detect(
        self, images: Sequence[Image.Image], queries: Sequence[str]
    ) -> list[list[Detection]]:
        """For each upright RGB image, the boxes past the thresholds, in any order."""


@dataclass(frozen=True)
class Scores:
    """A model's Q boxes in one image, and what it says of each of P queries."""

    best_QP: Floats  # of the query's words the best one's score, in [0, 1]
    mean_QP: Floats  # the mean over the query's words
    box_Q4: Floats  # x1, y1, x2, y2 in pixels of the image


def detections_of(scores: Scores, box_threshold: float, text_threshold: float) -> list[Detection]:
    """The boxes past both thresholds; a box answers the query whose words it fits best."""
    places = np.arange(len(scores.box_Q4))
    query_Q = scores.mean_QP.argmax(axis=1)
    score_Q, mean_Q = scores.best_QP[places, query_Q], scores.mean_QP[places, query_Q]
    is_kept_Q = (score_Q >= box_threshold) & (mean_Q >= text_threshold)
    return [
        Detection(int(query_Q[at]), round(float(score_Q[at]), 6), _box(scores.box_Q4[at]))
        for at in np.flatnonzero(is_kept_Q)
    ]


def _box(numbers: Floats) -> Box:
    x1, y1, x2, y2 = numbers.tolist()
    return x1, y1, x2, y2
