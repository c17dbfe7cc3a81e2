"""Every question's answer: ranks in all pools, and whether a region knows its text in its scene.

Legend: U images, R regions, T distinct texts, N questions of one pool, D embedding width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixclip.evaluation.benchmark import NO_TEXT, Benchmark, Indices, Strings
from pixclip.evaluation.metrics import IN_SUBSET, Columns, Floats, rows_of
from pixclip.evaluation.protocol import ALL
from pixclip.evaluation.ranks import retrieval_ranks


@dataclass(frozen=True)
class Embedded:
    """What a model makes of the benchmark's pictures, normalised."""

    regions_RD: Tensor
    images_UD: Tensor | None = None  # None: whole images are no question of this variant


@dataclass(frozen=True)
class Answers:
    """Columns by name, one value a question, NaN where it was not asked."""

    samples: Columns  # by region
    images: Columns  # by image


def answer(benchmark: Benchmark, embedded: Embedded, texts_TD: Tensor) -> Answers:
    """Ask everything the protocol asks.

    Raises:
        EvaluationError: an embedding is not finite.
    """
    samples: dict[str, Floats] = {
        "scene_correct": _scenes(benchmark, embedded.regions_RD, texts_TD)
    }
    for prefix, text_R in (("", benchmark.long_R), ("short_", benchmark.short_R)):
        names = f"{prefix}mask_to_text_rank", f"{prefix}text_to_mask_rank"
        subsets = benchmark.region_subsets
        samples |= _both_ways(names, embedded.regions_RD, text_R, texts_TD, subsets)
    images: dict[str, Floats] = {}
    if embedded.images_UD is not None:
        names = "image_to_text_rank", "text_to_image_rank"
        images = _both_ways(
            names, embedded.images_UD, benchmark.caption_U, texts_TD, benchmark.subset_U
        )
    return Answers(samples, images)


def _pools(text_N: Indices, subsets: Strings) -> Iterator[tuple[str, Indices]]:
    """Endings of column names and the rows that ask each other: all rows, then each subset's."""
    has_text = text_N != NO_TEXT
    for subset in [ALL, *sorted(set(subsets.tolist()) - {""})]:
        rows = np.flatnonzero(rows_of(subsets, subset) & has_text)
        if len(rows):
            yield "" if subset == ALL else IN_SUBSET, rows


def _both_ways(
    names: tuple[str, str], visual_ND: Tensor, text_N: Indices, texts_TD: Tensor, subsets: Strings
) -> dict[str, Floats]:
    """Ranks of texts for pictures and of pictures for texts, in each pool."""
    columns = {
        name + ending: np.full(len(text_N), np.nan) for name in names for ending in ("", IN_SUBSET)
    }
    for ending, rows in _pools(text_N, subsets):
        forth, back = _ranks(visual_ND[torch.from_numpy(rows)], text_N[rows], texts_TD)
        columns[names[0] + ending][rows] = forth
        columns[names[1] + ending][rows] = back
    return columns


def _ranks(visual_ND: Tensor, text_N: Indices, texts_TD: Tensor) -> tuple[Floats, Floats]:
    """Ranks of each picture's text among the distinct ones, and of each text's best picture."""
    texts, place_N = np.unique(text_N, return_inverse=True)
    distinct_LD = texts_TD[torch.from_numpy(texts)]
    labels_N, labels_L = torch.from_numpy(place_N), torch.arange(len(texts))
    forth = retrieval_ranks(visual_ND, distinct_LD, labels_N, labels_L).double().numpy()
    back = retrieval_ranks(distinct_LD, visual_ND, labels_L, labels_N).double().numpy()
    return forth, back[place_N]


def scenes(benchmark: Benchmark) -> Iterator[Indices]:
    """The regions of every image that has at least two different long captions."""
    order = np.argsort(benchmark.image_R, kind="stable")
    starts = np.flatnonzero(np.diff(benchmark.image_R[order])) + 1
    for rows in np.split(order, starts):
        if len(set(benchmark.long_R[rows].tolist())) > 1:
            yield rows


def _scenes(benchmark: Benchmark, regions_RD: Tensor, texts_TD: Tensor) -> Floats:
    """Whether each region's own long caption is the most similar of its scene's; [R]."""
    correct_R = np.full(len(benchmark.region_ids), np.nan)
    for rows in scenes(benchmark):
        texts, place_N = np.unique(benchmark.long_R[rows], return_inverse=True)
        ranks_N = retrieval_ranks(
            regions_RD[torch.from_numpy(rows)],
            texts_TD[torch.from_numpy(texts)],
            torch.from_numpy(place_N),
            torch.arange(len(texts)),
        )
        correct_R[rows] = (ranks_N == 1).numpy()
    return correct_R
