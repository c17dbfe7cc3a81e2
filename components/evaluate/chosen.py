"""Which questions the page shows: some by lot, and the worst mistakes.

Legend: R regions, T texts, D embedding width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pixclip.evaluation.answers import Embedded
from pixclip.evaluation.benchmark import Benchmark, Indices
from pixclip.evaluation.metrics import Columns
from pixclip.evaluation.ranks import best_candidates

NUM_BEST = 5


@dataclass(frozen=True)
class Found:
    """A candidate that the model found: the place of a text or region, and whether it is right."""

    place: int
    similarity: float
    is_right: bool


@dataclass(frozen=True)
class Shown:
    """A region with its text, what each of them finds, and the ranks of the right answers."""

    region: int
    texts: list[Found]
    regions: list[Found]
    text_rank: int
    region_rank: int


def by_lot(benchmark: Benchmark, number: int, seed: int) -> list[int]:
    """Regions of different images, the subsets in turn."""
    random = np.random.default_rng(seed)
    images = random.permutation(len(benchmark.image_ids))
    subsets, turns = benchmark.subset_U[images], np.empty(len(images), dtype=np.int64)
    for subset in np.unique(subsets):
        is_here = subsets == subset
        turns[is_here] = np.arange(is_here.sum())
    in_turns = images[np.argsort(turns, kind="stable")]
    with_regions = in_turns[np.isin(in_turns, benchmark.image_R)][:number]
    return [int(random.choice(np.flatnonzero(benchmark.image_R == i))) for i in with_regions]


def worst(benchmark: Benchmark, samples: Columns, number: int) -> list[int]:
    """The regions whose texts came last, each of another image."""
    ranks_R: Indices = samples["mask_to_text_rank"].astype(np.int64)
    seen: set[int] = set()
    found = []
    for region in np.argsort(-ranks_R, kind="stable").tolist():
        image = int(benchmark.image_R[region])
        if ranks_R[region] > 1 and image not in seen:
            seen.add(image)
            found.append(region)
    return found[:number]


def show(
    regions: Sequence[int],
    benchmark: Benchmark,
    samples: Columns,
    embedded: Embedded,
    texts_TD: Tensor,
) -> list[Shown]:
    """What the model finds for regions and their long texts among all of the benchmark."""
    texts = np.unique(benchmark.long_R)
    return [
        Shown(
            region,
            _found_texts(region, benchmark, embedded, texts_TD, texts),
            _found_regions(region, benchmark, embedded, texts_TD),
            int(samples["mask_to_text_rank"][region]),
            int(samples["text_to_mask_rank"][region]),
        )
        for region in regions
    ]


def _found_texts(
    region: int, benchmark: Benchmark, embedded: Embedded, texts_TD: Tensor, texts: Indices
) -> list[Found]:
    question_1D = embedded.regions_RD[region : region + 1]
    scores, places = best_candidates(question_1D, texts_TD[texts.tolist()], NUM_BEST)
    own = benchmark.long_R[region]
    return [
        Found(int(texts[place]), score, bool(texts[place] == own))
        for score, place in zip(scores[0].tolist(), places[0].tolist(), strict=True)
    ]


def _found_regions(
    region: int, benchmark: Benchmark, embedded: Embedded, texts_TD: Tensor
) -> list[Found]:
    own = int(benchmark.long_R[region])
    scores, places = best_candidates(texts_TD[own : own + 1], embedded.regions_RD, NUM_BEST)
    return [
        Found(place, score, bool(benchmark.long_R[place] == own))
        for score, place in zip(scores[0].tolist(), places[0].tolist(), strict=True)
    ]
