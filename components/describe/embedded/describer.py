"""Describe a scene by rules over what is measured."""

from collections.abc import Sequence

from components.describe.embedded.captions import Captions, Writer, long_limits, num_words
from components.describe.embedded.measure import Measures, measure_scene
from components.describe.embedded.nouns import Noun, clean_phrase, noun_of
from components.describe.embedded.verdict import Verdict, judge
from components.describe.types import (
    Description,
    Outcome,
    Provenance,
    Region,
    Rejection,
    Scene,
    WordLimits,
)
from data_contracts.reasons import DescribeReason

RULES = Provenance(describer="embedded-rules", model="rules-v1")
MAX_MENTIONED_WORDS = 7  # a longer phrase of a neighbour would crowd out the region itself
UNNAMED = Noun("another object", "the other object", is_plural=False, is_person=False)


class EmbeddedDescriber:
    """A describer without a model: colours, shape, place and relations, measured and worded."""

    def __init__(self, limits: WordLimits) -> None:
        self._limits = limits

    def describe(self, scene: Scene) -> Sequence[Outcome]:
        """One outcome for each region of the scene, in their order."""
        phrases = [clean_phrase(region.phrase) for region in scene.regions]
        nouns = [
            _neighbour_noun(phrase, region)
            for phrase, region in zip(phrases, scene.regions, strict=True)
        ]
        return [
            self._describe_region(index, phrases[index], measures, scene.regions[index], nouns)
            for index, measures in enumerate(measure_scene(scene))
        ]

    def _describe_region(
        self,
        index: int,
        phrase: str,
        measures: Measures | None,
        region: Region,
        nouns: Sequence[Noun],
    ) -> Outcome:
        verdict = judge(phrase, measures)
        if not verdict.is_accepted or measures is None:
            return _rejection(region, "verify", verdict.code, verdict.detail)
        own = noun_of(phrase, region.image_caption)
        named = [own if number == index else noun for number, noun in enumerate(nouns)]
        captions = Writer(measures, named, index).write(self._limits)
        problem = self._length_problem(captions)
        if problem:
            return _rejection(region, "merge", *problem)
        return _description(region, verdict, captions)

    def _length_problem(self, captions: Captions) -> tuple[str, str] | None:
        limits = self._limits
        fewest, most = long_limits(limits)
        for name, text, low, high in (
            ("long_caption", captions.long_caption, fewest, most),
            ("short_caption", captions.short_caption, limits.min_short, limits.max_short),
        ):
            count = num_words(text)
            if not low <= count <= high:
                code = DescribeReason.TOO_SHORT if count < low else DescribeReason.TOO_LONG
                return code, f"{name} has {count} words, {low} to {high} are needed"
        return None


def _neighbour_noun(phrase: str, region: Region) -> Noun:
    """How the other regions' captions call this region."""
    has_letters = any(char.isascii() and char.isalpha() for char in phrase)
    if not has_letters or len(phrase.split()) > MAX_MENTIONED_WORDS:
        return UNNAMED
    return noun_of(phrase, region.image_caption)


def _description(region: Region, verdict: Verdict, captions: Captions) -> Description:
    return Description(
        region_id=region.region_id,
        object_caption=captions.object_caption,
        verdict=verdict.code,
        verdict_reason=verdict.detail,
        context_caption=captions.context_caption,
        long_caption=captions.long_caption,
        short_caption=captions.short_caption,
        provenance=dict.fromkeys(("object", "verify", "context", "merge", "check"), RULES),
    )


def _rejection(region: Region, stage: str, reason: str, detail: str) -> Rejection:
    return Rejection(region.region_id, stage, reason, detail, provenance={"verify": RULES})
