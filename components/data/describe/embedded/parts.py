"""Describe parts by rules, and the whole image by what was said of its parts."""

from collections.abc import Sequence
from dataclasses import replace

from components.data.describe.embedded import words
from components.data.describe.embedded.captions import num_words
from components.data.describe.embedded.describer import RULES, EmbeddedDescriber
from components.data.describe.embedded.measure import measure_scene
from components.data.describe.embedded.words import clean_phrase, noun_of
from components.data.describe.scenes import (
    Description,
    Outcome,
    Region,
    Rejection,
    Scene,
    WordLimits,
)
from data_contracts.reasons import DescribeReason

STAGES, WHOLE_STAGES = ("part", "verify_part"), ("whole", "verify_whole")


class EmbeddedPartDescriber:
    """A describer of parts without a model; whole images are told by their parts."""

    def __init__(self, limits: WordLimits) -> None:
        self._limits, self._parts = limits, EmbeddedDescriber(limits, STAGES)

    def describe(self, scene: Scene) -> Sequence[Outcome]:
        """One outcome for each region of the scene, in their order."""
        parts = tuple(region for region in scene.regions if not region.is_whole_image)
        outcomes = dict(
            zip(parts, self._parts.describe(replace(scene, regions=parts)), strict=True)
        )
        for region in scene.regions:
            if region.is_whole_image:
                outcomes[region] = self._describe_whole(scene, region, outcomes)
        return [outcomes[region] for region in scene.regions]

    def _describe_whole(self, scene: Scene, whole: Region, parts: dict[Region, Outcome]) -> Outcome:
        (measures,) = measure_scene(replace(scene, regions=(whole,)))
        assert measures is not None, "a whole image has pixels"
        told = [(part, said) for part, said in parts.items() if isinstance(said, Description)]
        kind = _indefinite(whole, "scene")
        colours, surface = words.colour_phrase(measures.colours), measures.edge_density
        ending = (
            f"As a whole the picture is {colours}, and its surface looks "
            f"{words.surface_word(surface)}."
        )
        long_caption = self._fitting(
            [f"The picture shows {kind}. {ending}"],
            [
                f"The picture shows {kind} with {number}: {listed}. {ending}"
                for number, listed in _lists([said.short_caption for _, said in told])
            ],
            self._limits.max_long,
        )
        mentions = [_indefinite(part, "part") for part, _ in told]
        short_caption = self._fitting(
            [kind],
            [f"{kind} with {words.join(mentions[:count])}" for count in _counts(mentions)],
            self._limits.max_short,
        )
        if num_words(long_caption) < self._limits.min_long:
            detail = f"long_caption has {num_words(long_caption)} words: too little was measured"
            return Rejection(whole.region_id, "whole", DescribeReason.TOO_SHORT, detail)
        return Description(
            region_id=whole.region_id,
            object_caption=long_caption,
            verdict="accepted",
            verdict_reason=f"made of the captions of {len(told)} parts",
            context_caption="This is the whole image.",
            long_caption=long_caption,
            short_caption=short_caption,
            provenance=dict.fromkeys(WHOLE_STAGES, RULES),
        )

    def _fitting(self, shortest: list[str], longer: list[str], most: int) -> str:
        """The last text that is not too long."""
        return [text for text in [*shortest, *longer] if num_words(text) <= most][-1]


def _indefinite(region: Region, otherwise: str) -> str:
    """How a region is called at its first mention, by a name that comes without an article."""
    phrase = clean_phrase(region.phrase) or otherwise
    mention = noun_of(phrase, region.image_caption).mention
    core = mention.removeprefix("the ")
    if core == mention or phrase.lower().startswith("the ") or core.endswith("s"):
        return mention
    return f"{words.article(core)} {core}"


def _lists(captions: Sequence[str]) -> list[tuple[str, str]]:
    """The first, the first two, … as `one part` and `a; b`."""
    return [
        (
            f"{words.NUMBERS[count] if count < len(words.NUMBERS) else count} "
            f"{'part' if count == 1 else 'parts'}",
            "; ".join(captions[:count]),
        )
        for count in _counts(captions)
    ]


def _counts(things: Sequence[str]) -> range:
    return range(1, len(things) + 1)
