"""What is measured and how, by an id: two evaluations of one protocol and one data set compare.

Published numbers of this field often differ because candidate pool, captions or normalisation
do. Whatever changes a number is therefore written down here; a change makes another digest.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from pixclip.data.layout import BENCHMARK, HELD_OUT_OBJECTS, KINDS, SEEN_OBJECTS

SCENE_ACCURACY = "scene_accuracy"  # the metric of a region that asks among its scene's texts
TOPS = (1, 5, 10)
ALL = "all"  # the name of the whole split among its subsets
# As tables show them. A benchmark with several kinds of regions has a subset of each kind, too.
SUBSETS = (ALL, SEEN_OBJECTS, HELD_OUT_OBJECTS, *KINDS)
TIE_TOLERANCE = 1e-6  # of cosine similarities; float32 products differ by 1e-7 with their order


class Question(StrEnum):
    """Who asks whom: what every region, text or image looks for among all others."""

    MASK_TO_TEXT = "mask_to_text"
    TEXT_TO_MASK = "text_to_mask"
    SHORT_MASK_TO_TEXT = "short_mask_to_text"
    SHORT_TEXT_TO_MASK = "short_text_to_mask"
    IMAGE_TO_TEXT = "image_to_text"
    TEXT_TO_IMAGE = "text_to_image"

    @property
    def rank(self) -> str:
        """The column with the rank of the best right answer."""
        return f"{self}_rank"

    def recall_at(self, top: int) -> str:
        """The metric: the share of questions with a right answer among the first `top`."""
        return f"{self}_r{top}"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A definition of an evaluation; every field is part of its digest."""

    id: str
    split: str
    tops: tuple[int, ...]
    tie_tolerance: float
    embeddings: str
    preprocessing: str
    pool: str
    right_answers: str
    ties: str
    questions: tuple[str, ...]

    @property
    def digest(self) -> str:
        """sha256 hex of the definition."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def of_split(self, split: str) -> "Protocol":
        """The protocol asked of another split: its digest differs, so that numbers never mix."""
        return replace(self, split=split)


LONGGRIT_REGIONS = Protocol(
    id="longgrit-regions/1",
    split=BENCHMARK,
    tops=TOPS,
    tie_tolerance=TIE_TOLERANCE,
    embeddings="L2-normalised float32; similarity is the cosine",
    preprocessing="the model's own: image squashed to its square, mask averaged over areas; "
    "an image without a mask gets the mask that is 1 everywhere",
    pool="all regions and distinct captions of the split, or of the subset for its own numbers",
    right_answers="every candidate whose text is the very text of the question's region or image",
    ties="a wrong candidate within tie_tolerance of the best right one counts as ahead of it",
    questions=(
        "mask_to_text: a region asks for its long caption among all long captions",
        "text_to_mask: a region's long caption asks for the region among all regions",
        "short_mask_to_text, short_text_to_mask: the same with short captions",
        "scene: a region asks for its long caption among those of the regions of its image; "
        "images with at least two different long captions only",
        "image_to_text, text_to_image: whole images and the captions that came with them",
    ),
)


FGPART_PARTS = replace(
    LONGGRIT_REGIONS,
    id="fgpart-parts/1",
    preprocessing="the model's own: the part's box in whole pixels cut out of the original image, "
    "squashed to the model's square; the image likewise, without what its source has below it",
    pool="all parts and distinct captions of the split, or of the subset for its own numbers; "
    "whole images are no parts",
    questions=(
        "mask_to_text: a part asks for its long caption among all long captions",
        "text_to_mask: a part's long caption asks for the part among all parts",
        "short_mask_to_text, short_text_to_mask: the same with short captions",
        "scene: a part asks for its long caption among those of the parts of its image; "
        "images with at least two different long captions only",
        "image_to_text, text_to_image: whole images and their long captions",
    ),
)

PROTOCOLS = {protocol.id: protocol for protocol in (LONGGRIT_REGIONS, FGPART_PARTS)}


class EvaluationError(ValueError):
    """An evaluation cannot be made, read or compared; the message says why and what to do."""
