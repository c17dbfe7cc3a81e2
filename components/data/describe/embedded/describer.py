"""Describe a scene by rules over what is measured; refuse a phrase that it refutes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.data.describe.embedded.captions import Captions, Writer, long_limits, num_words
from components.data.describe.embedded.colours import colour_words, share_like
from components.data.describe.embedded.measure import Measures, measure_scene
from components.data.describe.embedded.words import Noun, clean_phrase, noun_of
from components.data.describe.scenes import (
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
OBJECT_STAGES = ("object", "verify", "context", "merge", "check")
MAX_MENTIONED_WORDS = 7  # a longer phrase of a neighbour would crowd out the region itself
UNNAMED = Noun("another object", "the other object", is_plural=False, is_person=False)


class EmbeddedDescriber:
    """A describer without a model: colours, shape, place and relations, measured and worded."""

    def __init__(self, limits: WordLimits, stages: Sequence[str] = OBJECT_STAGES) -> None:
        self._limits, self._provenance = limits, dict.fromkeys(stages, RULES)

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
        return _description(region, verdict, captions, self._provenance)

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


@dataclass(frozen=True)
class Verdict:
    """`accepted`, or a short code, and why in words."""

    code: str
    detail: str

    @property
    def is_accepted(self) -> bool:
        """Whether the region may be described."""
        return self.code == ACCEPTED


def _description(
    region: Region, verdict: Verdict, captions: Captions, provenance: Mapping[str, Provenance]
) -> Description:
    return Description(
        region_id=region.region_id,
        object_caption=captions.object_caption,
        verdict=verdict.code,
        verdict_reason=verdict.detail,
        context_caption=captions.context_caption,
        long_caption=captions.long_caption,
        short_caption=captions.short_caption,
        provenance=provenance,
    )


def _rejection(region: Region, stage: str, reason: str, detail: str) -> Rejection:
    return Rejection(region.region_id, stage, reason, detail, provenance={"verify": RULES})


MIN_MASK_PX = 64
MAX_NAME_WORDS = 16  # a longer phrase names no single thing
MIN_COLOUR_SHARE = 0.03  # of the mask that must come near a colour which the phrase names
ACCEPTED = "accepted"


def judge(phrase: str, measures: Measures | None) -> Verdict:
    """The verdict on a region by its cleaned phrase and its measures (None: an empty mask)."""
    return _judge_phrase(phrase) or _judge_mask(measures) or _judge_colours(phrase, measures)


def named_colours(phrase: str) -> list[str]:
    """The colours that a phrase claims; nouns (`an orange`) and names (`a Red Fox`) are none."""
    words = re.findall(r"[^\W\d_]+", phrase)
    return colour_words(dict.fromkeys(words[:-1]))


def _judge_phrase(phrase: str) -> Verdict | None:
    letters = [char for char in phrase if char.isalpha()]
    if not letters:
        return Verdict(DescribeReason.REJECTED_UNCERTAIN, "the phrase holds no words")
    num_foreign = sum(ord(char) > 0x24F for char in letters)
    if num_foreign > 0.2 * len(letters):
        detail = f"{num_foreign} of the {len(letters)} letters of the phrase are not Latin"
        return Verdict(DescribeReason.REJECTED_LANGUAGE, detail)
    num_words = len(phrase.split())
    if num_words > MAX_NAME_WORDS:
        detail = f"a phrase of {num_words} words names no single thing (limit {MAX_NAME_WORDS})"
        return Verdict(DescribeReason.REJECTED_UNCERTAIN, detail)
    return None


def _judge_mask(measures: Measures | None) -> Verdict | None:
    area_px = measures.area_px if measures else 0
    if area_px >= MIN_MASK_PX:
        return None
    detail = f"a mask of {area_px} pixels is too small to measure (limit {MIN_MASK_PX})"
    return Verdict(DescribeReason.REJECTED_UNCERTAIN, detail)


def _judge_colours(phrase: str, measures: Measures | None) -> Verdict:
    assert measures is not None, "an empty mask was accepted"
    shares = {word: share_like(word, measures.pixels) for word in named_colours(phrase)}
    for word, share in shares.items():
        if share < MIN_COLOUR_SHARE:
            seen = ", ".join(f"{c.words} {c.share:.0%}" for c in measures.colours)
            detail = f"the phrase says {word}, {share:.1%} of the mask comes near it; it is {seen}"
            return Verdict(DescribeReason.REJECTED_INCONSISTENT, detail)
    if not shares:
        return Verdict(ACCEPTED, "the phrase makes no claim that was measured")
    claims = ", ".join(f"{word} {share:.0%}" for word, share in shares.items())
    return Verdict(ACCEPTED, f"near the colours that the phrase names: {claims} of the mask")
