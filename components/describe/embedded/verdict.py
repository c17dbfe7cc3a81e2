"""Check a phrase against what was measured: refuse what is refuted or too small to speak of."""

import re
from dataclasses import dataclass

from components.describe.embedded.colours import colour_words, share_like
from components.describe.embedded.measure import Measures
from data_contracts.reasons import DescribeReason

MIN_MASK_PX = 64
MAX_PHRASE_WORDS = 16
MIN_COLOUR_SHARE = 0.03  # of the mask that must come near a colour which the phrase names
ACCEPTED = "accepted"


@dataclass(frozen=True)
class Verdict:
    """`accepted`, or a short code, and why in words."""

    code: str
    detail: str

    @property
    def is_accepted(self) -> bool:
        """Whether the region may be described."""
        return self.code == ACCEPTED


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
    if num_words > MAX_PHRASE_WORDS:
        detail = f"a phrase of {num_words} words names no single thing (limit {MAX_PHRASE_WORDS})"
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
