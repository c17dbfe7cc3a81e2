"""What is asked (regions, images and captions of a split, as indices), and every answer.

Answers are ranks in all pools, and whether a region knows its text in its scene; beside them what
guessing would reach.

Legend: U images, R regions, T distinct texts, N questions of one pool, D embedding width.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pixclip.data.layout import KINDS
from pixclip.data.samples import Sample
from pixclip.evaluation.metrics import IN_KIND, IN_SUBSET, Columns, Floats, rows_of
from pixclip.evaluation.protocol import ALL, SCENE_ACCURACY, TOPS, EvaluationError, Question
from pixclip.evaluation.retrieval import retrieval_ranks
from pixclip.text.tokens import normalise

Indices = npt.NDArray[np.int64]
Strings = npt.NDArray[np.str_]
NO_TEXT = -1  # of an image that came without a caption


@dataclass(frozen=True)
class Benchmark:
    """The questions of an evaluation; texts are places in `texts`."""

    region_ids: list[str]
    image_ids: list[str]
    texts: list[str]
    image_R: Indices  # the region's place in `image_ids`
    long_R: Indices
    short_R: Indices
    caption_U: Indices  # `NO_TEXT` where there is none
    subset_U: Strings
    kind_R: Strings  # one of `KINDS`; empty texts where all regions are of one kind
    digest: str  # of everything that was asked: image contents, masks, captions, subsets

    @property
    def region_subsets(self) -> Strings:
        """The subset of every region's image, [R]."""
        return self.subset_U[self.image_R]

    @property
    def subsets(self) -> list[str]:
        """`all`, the names of the subsets, and the kinds of regions if there are several."""
        kinds = [kind for kind in KINDS if (self.kind_R == kind).any()]
        return [ALL, *_names(self.subset_U), *kinds]

    def regions_of(self, subset: str) -> npt.NDArray[np.bool_]:
        """Which regions are in a subset or of a kind, [R]."""
        return rows_of(self.kind_R if subset in KINDS else self.region_subsets, subset)

    def images_of(self, subset: str) -> npt.NDArray[np.bool_]:
        """Which images are in a subset, or have regions of a kind, [U]."""
        if subset in KINDS:
            return np.isin(np.arange(len(self.image_ids)), self.image_R[self.regions_of(subset)])
        return rows_of(self.subset_U, subset)


def _names(labels: Strings) -> list[str]:
    return sorted({str(name) for name in labels} - {""})


def _captions(benchmark: Benchmark, subset: str) -> Indices:
    asks_U = rows_of(benchmark.subset_U, subset) & (benchmark.caption_U != NO_TEXT)
    return np.asarray(benchmark.caption_U[asks_U])


@dataclass
class BenchmarkBuilder:
    """Gathers a benchmark from samples as they come."""

    _region_ids: list[str] = field(default_factory=list)
    _image_ids: list[str] = field(default_factory=list)
    _texts: dict[str, int] = field(default_factory=dict)
    _rows: list[tuple[int, int, int]] = field(default_factory=list)
    _captions: list[int] = field(default_factory=list)
    _subsets: list[str] = field(default_factory=list)
    _kinds: list[str] = field(default_factory=list)
    _digests: list[str] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Take the questions of one image."""
        place = len(self._image_ids)
        self._image_ids.append(sample.image_id)
        self._subsets.append(sample.subset)
        self._captions.append(self._text(sample.caption) if sample.caption.strip() else NO_TEXT)
        for region in sample.regions:
            self._region_ids.append(region.region_id)
            texts = self._text(region.long_caption), self._text(region.short_caption)
            self._rows.append((place, *texts))
            self._kinds.append(region.kind)
        self._digests.append(_digest_of_sample(sample))

    def build(self) -> Benchmark:
        """The benchmark of all samples so far; the digest does not depend on their order.

        Raises:
            EvaluationError: a subset has the name of a kind of regions.
        """
        if taken := set(self._subsets) & set(KINDS):
            raise EvaluationError(
                f"a subset of the split is called {min(taken)}, as a kind of regions is; call the "
                "subset something else in the source and pack the data set again"
            )
        has_kinds = len(set(self._kinds)) > 1
        rows = np.array(self._rows, dtype=np.int64).reshape(-1, 3)
        return Benchmark(
            region_ids=self._region_ids,
            image_ids=self._image_ids,
            texts=list(self._texts),
            image_R=rows[:, 0],
            long_R=rows[:, 1],
            short_R=rows[:, 2],
            caption_U=np.array(self._captions, dtype=np.int64),
            subset_U=np.array(self._subsets, dtype=str),
            kind_R=np.array(self._kinds if has_kinds else [""] * len(rows), dtype=str),
            digest=hashlib.sha256("".join(sorted(self._digests)).encode()).hexdigest(),
        )

    def _text(self, text: str) -> int:
        # As caches of embeddings tell texts apart.
        return self._texts.setdefault(normalise(text), len(self._texts))


def _digest_of_sample(sample: Sample) -> str:
    regions = [
        (r.region_id, r.mask.counts, r.long_caption, r.short_caption) for r in sample.regions
    ]
    # An image's id is that of its source: the bytes that the model sees are another thing.
    picture = hashlib.sha256(sample.jpeg).hexdigest()
    content = (sample.image_id, picture, sample.subset, sample.caption, sorted(regions))
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class Embedded:
    """What a model makes of the benchmark's pictures, normalised."""

    regions_RD: Tensor
    images_UD: Tensor | None = None  # None: whole images are no question of this variant
    texts_TD: Tensor | None = None  # None: it is asked by the model's texts


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
    pools = {IN_SUBSET: benchmark.region_subsets}
    if benchmark.kind_R.any():
        pools[IN_KIND] = benchmark.kind_R
    samples: dict[str, Floats] = {
        "scene_correct": _scenes(benchmark, embedded.regions_RD, texts_TD)
    }
    for forth, back, text_R in (
        (Question.MASK_TO_TEXT, Question.TEXT_TO_MASK, benchmark.long_R),
        (Question.SHORT_MASK_TO_TEXT, Question.SHORT_TEXT_TO_MASK, benchmark.short_R),
    ):
        names = forth.rank, back.rank
        samples |= _both_ways(names, embedded.regions_RD, text_R, texts_TD, pools)
    images: dict[str, Floats] = {}
    if embedded.images_UD is not None:
        names = Question.IMAGE_TO_TEXT.rank, Question.TEXT_TO_IMAGE.rank
        images = _both_ways(
            names,
            embedded.images_UD,
            benchmark.caption_U,
            texts_TD,
            {IN_SUBSET: benchmark.subset_U},
        )
    return Answers(samples, images)


def _pools(text_N: Indices, pools: Mapping[str, Strings]) -> Iterator[tuple[str, Indices]]:
    """Endings of column names and the rows that ask each other: all, then those of one label."""
    has_text = text_N != NO_TEXT
    yield "", np.flatnonzero(has_text)
    for ending, labels in pools.items():
        for name in _names(labels):
            yield ending, np.flatnonzero((labels == name) & has_text)


def _both_ways(
    names: tuple[str, str],
    visual_ND: Tensor,
    text_N: Indices,
    texts_TD: Tensor,
    pools: Mapping[str, Strings],
) -> dict[str, Floats]:
    """Ranks of texts for pictures and of pictures for texts, in each pool."""
    columns = {
        name + ending: np.full(len(text_N), np.nan) for name in names for ending in ("", *pools)
    }
    for ending, rows in _pools(text_N, pools):
        if not len(rows):
            continue
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


def chance(benchmark: Benchmark, subset: str) -> dict[str, float]:
    """The expected value of every metric that a subset asks, by name."""
    found: dict[str, float] = {}
    in_subset_R = benchmark.regions_of(subset)
    shares = [
        1 / len(set(benchmark.long_R[rows].tolist()))
        for rows in scenes(benchmark)
        for _ in range(in_subset_R[rows].sum())
    ]
    if shares:
        found[SCENE_ACCURACY] = float(np.mean(shares))
    for forth, back, text_N in (
        (Question.MASK_TO_TEXT, Question.TEXT_TO_MASK, benchmark.long_R[in_subset_R]),
        (Question.SHORT_MASK_TO_TEXT, Question.SHORT_TEXT_TO_MASK, benchmark.short_R[in_subset_R]),
        (Question.IMAGE_TO_TEXT, Question.TEXT_TO_IMAGE, _captions(benchmark, subset)),
    ):
        if len(text_N):
            found |= _recalls(forth, back, text_N)
    return found


def _recalls(forth: Question, back: Question, text_N: Indices) -> dict[str, float]:
    _, place_N, counts_L = np.unique(text_N, return_inverse=True, return_counts=True)
    found = {forth.recall_at(top): min(1.0, top / len(counts_L)) for top in TOPS}
    for top in TOPS:
        found[back.recall_at(top)] = float(_hit(len(text_N), counts_L, top)[place_N].mean())
    return found


def _hit(num_candidates: int, num_right_L: Indices, top: int) -> Floats:
    """The probability that one of the right candidates is among the first `top` by lot."""
    missed = np.ones(len(num_right_L))
    for drawn in range(min(top, num_candidates)):
        left = num_candidates - drawn
        missed *= np.maximum(left - num_right_L, 0) / left
    return 1 - missed
