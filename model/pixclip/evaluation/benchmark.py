"""What is asked: the regions and images of a split and their captions, as indices.

Legend: U images, R regions.
"""

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pixclip.data.samples import Sample
from pixclip.evaluation.protocol import ALL
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
    digest: str  # of everything that was asked: image contents, masks, captions, subsets

    @property
    def region_subsets(self) -> Strings:
        """The subset of every region's image, [R]."""
        return self.subset_U[self.image_R]

    @property
    def subsets(self) -> list[str]:
        """`all` and the names of the subsets."""
        return [ALL, *sorted({str(name) for name in self.subset_U} - {""})]


@dataclass
class BenchmarkBuilder:
    """Gathers a benchmark from samples as they come."""

    _region_ids: list[str] = field(default_factory=list)
    _image_ids: list[str] = field(default_factory=list)
    _texts: dict[str, int] = field(default_factory=dict)
    _rows: list[tuple[int, int, int]] = field(default_factory=list)
    _captions: list[int] = field(default_factory=list)
    _subsets: list[str] = field(default_factory=list)
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
        self._digests.append(_digest_of_sample(sample))

    def build(self) -> Benchmark:
        """The benchmark of all samples so far; the digest does not depend on their order."""
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
