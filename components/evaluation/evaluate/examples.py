"""Which questions the page shows (some by lot, and the worst mistakes), and their pictures.

Legend: R regions, T texts, D embedding width.
"""

import base64
import io
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from pixclip.data.pictures import window_of
from pixclip.data.samples import Region, Sample
from pixclip.evaluation.benchmark import Benchmark, Embedded, Indices
from pixclip.evaluation.metrics import Columns, Floats
from pixclip.evaluation.pictures import cls_attention, heat, outlined, patch_similarity
from pixclip.evaluation.protocol import Question
from pixclip.evaluation.retrieval import best_candidates
from pixclip.masks import Mask, decode_mask
from pixclip.model import PixClip
from pixclip.preprocess import crop_window

NUM_BEST = 5


@dataclass(frozen=True)
class Found:
    """A candidate that the model found: the place of a text or region, and whether it is right."""

    place: int
    similarity: float
    is_right: bool


@dataclass(frozen=True)
class Example:
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
    ranks_R: Indices = samples[Question.MASK_TO_TEXT.rank].astype(np.int64)
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
) -> list[Example]:
    """What the model finds for regions and their long texts among all of the benchmark."""
    texts = np.unique(benchmark.long_R)
    return [
        Example(
            region,
            _found_texts(region, benchmark, embedded, texts_TD, texts),
            _found_regions(region, benchmark, embedded, texts_TD),
            int(samples[Question.MASK_TO_TEXT.rank][region]),
            int(samples[Question.TEXT_TO_MASK.rank][region]),
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


REGION_SIDE_PX, MAP_SIDE_PX = 224, 320
LEAST_AROUND_PX = 96  # of an image, along the longer side of a region that is shown by itself
JPEG_QUALITY = 82
FOLDER = "pictures"


@dataclass(frozen=True)
class Picture:
    """A picture as a data URL, and the file beside the page that holds it too."""

    name: str
    data_url: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Maps:
    """What a model looks at for a region, and where it sees the region's text."""

    region: int
    outlined: Picture
    attention_whole: Picture
    attention_region: Picture
    similarity: Picture
    similarity_range: tuple[float, float]


@dataclass
class Figures:
    """Pictures by region."""

    regions: dict[int, Picture] = field(default_factory=dict)
    maps: dict[int, Maps] = field(default_factory=dict)


@dataclass(frozen=True)
class FigureWriter:
    """Draws for one model into one folder; `texts_TD` embeds the benchmark's texts.

    A model that sees crops is shown regions cut out; pictures then show what is around them, not
    the whole image, in which a small part could not be made out.
    """

    folder: Path
    model: PixClip
    benchmark: Benchmark
    texts_TD: Tensor
    sees_crops: bool = False

    def draw(self, samples: Iterable[Sample], regions: Set[int], with_maps: Set[int]) -> Figures:
        """Draw regions; `samples` come in the order in which the benchmark was built."""
        (self.folder / FOLDER).mkdir(parents=True, exist_ok=True)
        figures, first = Figures(), 0
        for sample in samples:
            wanted = range(first, first + len(sample.regions))
            first += len(sample.regions)
            if (regions | with_maps).isdisjoint(wanted):
                continue
            image = sample.image()
            for place, region in zip(wanted, sample.regions, strict=True):
                mask = decode_mask(region.mask)
                if place in regions:
                    drawn = outlined(*self._around(sample, region, image, mask), REGION_SIDE_PX)
                    figures.regions[place] = self._save(f"region-{place:06d}", drawn)
                if place in with_maps:
                    figures.maps[place] = self._maps(place, sample, region, image, mask)
        return figures

    def _around(
        self, sample: Sample, region: Region, image: Image.Image, mask: Mask
    ) -> tuple[Image.Image, Mask]:
        """A picture that shows a region well, and its mask in there."""
        if not self.sees_crops:
            return image, mask
        x1, y1, x2, y2 = region.box_xyxy
        sides = x2 - x1, y2 - y1
        margin = max(1.0, (LEAST_AROUND_PX / max(sides) - 1) / 2)
        window = crop_window(region.box_xyxy, sample.height_px, sample.width_px, margin)
        left, top, right, bottom = window
        return image.crop(window), mask[top:bottom, left:right]

    def _maps(
        self, place: int, sample: Sample, region: Region, image: Image.Image, mask: Mask
    ) -> Maps:
        shown, cover = image, mask if not self.sees_crops else None
        if self.sees_crops:
            shown = image.crop(window_of(region.box_xyxy, self.model.preprocess, sample))
        whole = cls_attention(self.model, image, None)
        attention = cls_attention(self.model, shown, cover)
        text_D = self.texts_TD[int(self.benchmark.long_R[place])]
        similarity = patch_similarity(self.model, image, text_D)
        low, high = float(similarity.min()), float(similarity.max())
        brightest = max(whole.max(), attention.max())  # one scale for both, or they do not compare
        return Maps(
            place,
            self._save(f"map-{place:06d}-region", outlined(image, mask, MAP_SIDE_PX)),
            self._heat(f"map-{place:06d}-attention-whole", image, whole, 0, brightest),
            self._heat(f"map-{place:06d}-attention-region", shown, attention, 0, brightest),
            self._heat(f"map-{place:06d}-similarity", image, similarity, low, high),
            (low, high),
        )

    def _heat(
        self, name: str, image: Image.Image, values: Floats, low: float, high: float
    ) -> Picture:
        return self._save(name, heat(image, values, low, high, MAP_SIDE_PX))

    def _save(self, name: str, image: Image.Image) -> Picture:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
        path = f"{FOLDER}/{name}.jpg"
        (self.folder / path).write_bytes(buffer.getvalue())
        text = base64.b64encode(buffer.getvalue()).decode()
        return Picture(path, f"data:image/jpeg;base64,{text}", image.width, image.height)
