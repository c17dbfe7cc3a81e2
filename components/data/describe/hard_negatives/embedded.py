"""Wrong captions by rules, for a laptop: a word is changed, and what was measured refutes it.

- colour: another one, which hardly a pixel of the mask comes near and the caption does not name;
- part: the name of another region of the image, if the two do not overlap;
- side: right instead of left, as the source names the part;
- place: another third of the picture than the one in which the mask lies.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest

from components.data.describe.embedded import words
from components.data.describe.embedded.colours import NAMES, colour_words, share_like
from components.data.describe.embedded.describer import MIN_COLOUR_SHARE, RULES
from components.data.describe.embedded.layout import OVERLAP_SHARE
from components.data.describe.embedded.measure import Measures, measure_scene
from components.data.describe.embedded.words import POSITIONS, clean_phrase, noun_of
from components.data.describe.hard_negatives.rules import (
    MIRRORED,
    Original,
    find_flaw,
    normalised,
)
from components.data.describe.hard_negatives.settings import HardNegativeSettings
from components.data.describe.scenes import Attribute, Contrast, LeftOut, Region, Scene
from data_contracts.reasons import DescribeReason, NegativeReason
from pixclip.masks import Box

STAGES = ("change", "verify_change")
KNOWN_COLOURS = tuple(colour_words(NAMES))  # that can be both named and looked for
COLOUR = re.compile(
    rf"\b(?:(?:light|dark|vivid|muted|pale|bright|deep) )?({'|'.join(KNOWN_COLOURS)})\b"
)
# `an orange, …` is a fruit.
NOUN_BEFORE, NOUN_AFTER = re.compile(r"\b(?:an?|the|one|another) $"), re.compile(r"\W*(?:[,.;]|$)")
COLUMNS = {"left": "right", "right": "left", "centre": "left"}
ROWS = {"upper": "lower", "lower": "upper", "middle": "upper"}
Candidates = dict[Attribute, list[str]]


class EmbeddedContraster:
    """Makes wrong captions without a model; of each attribute one comes first."""

    def __init__(self, settings: HardNegativeSettings) -> None:
        self._settings = settings

    def describe(self, scene: Scene) -> Sequence[Contrast]:
        """One outcome for each region of the scene, in their order."""
        measures = measure_scene(scene)
        return [
            self._contrast(region, measured, scene.regions)
            for region, measured in zip(scene.regions, measures, strict=True)
        ]

    def _contrast(
        self, region: Region, measures: Measures | None, regions: Sequence[Region]
    ) -> Contrast:
        if region.is_whole_image or measures is None:
            without = NegativeReason.WHOLE_IMAGE if measures else DescribeReason.INVALID_MASK
            return Contrast(region.region_id, without=without)
        original = Original(region.short_caption, region.phrase, [r.phrase for r in regions])
        kept: list[str] = []
        left_out: list[LeftOut] = []
        for attribute, text in _in_turns(self._candidates(region, measures, regions)):
            if len(kept) == self._settings.num_negatives:
                break
            flaw = find_flaw(original, text, attribute, [normalised(one) for one in kept])
            if flaw:
                left_out.append(LeftOut(text, flaw.reason, flaw.detail))
            else:
                kept.append(text)
        return Contrast(
            region_id=region.region_id,
            negatives=tuple(kept),
            left_out=tuple(left_out),
            without="" if kept else NegativeReason.NONE_LEFT,
            provenance=dict.fromkeys(STAGES, RULES),
        )

    def _candidates(
        self, region: Region, measures: Measures, regions: Sequence[Region]
    ) -> Candidates:
        made: Candidates = {
            "colour": list(_other_colours(region, measures)),
            "part": list(_other_parts(region, regions)),
            "side": list(_other_sides(region)),
            "place": list(_other_places(region, measures)),
        }
        return {name: made[name] for name in made if name in self._settings.attributes}


def _in_turns(candidates: Candidates) -> Iterator[tuple[Attribute, str]]:
    """The first of every attribute, then the second of every one, …"""
    columns = [[(name, text) for text in texts] for name, texts in candidates.items()]
    return (one for one in chain.from_iterable(zip_longest(*columns)) if one)


def _other_colours(region: Region, measures: Measures) -> Iterator[str]:
    """The caption with one of its colours replaced by one that is not there."""
    caption = region.short_caption
    mentions = [
        found for found in COLOUR.finditer(caption) if not _is_noun(caption, found, _name(region))
    ]
    named = [found[1] for found in mentions]
    # Said twice, a colour changed in one place would contradict itself.
    mentions = [found for found in mentions if named.count(found[1]) == 1]
    seen = {*named, *(colour.name for colour in measures.colours)}
    absent = [
        name
        for name in _shuffled(region, KNOWN_COLOURS)
        if name not in seen and share_like(name, measures.pixels) < MIN_COLOUR_SHARE
    ]
    for place, name in enumerate(absent):
        if mentions:
            found = mentions[place % len(mentions)]
            yield _replaced(caption, found.start(), found.end(), name)


def _is_noun(caption: str, found: re.Match[str], name: str) -> bool:
    """Whether a word of a colour is a thing: `an orange`, or the end of a name."""
    before, after = caption[: found.start()], caption[found.end() :]
    is_its_end = caption.startswith(name) and found.end() == len(name)
    return is_its_end or bool(NOUN_BEFORE.search(before) and NOUN_AFTER.match(after))


def _other_parts(region: Region, regions: Sequence[Region]) -> Iterator[str]:
    """The caption with the name of another region that lies elsewhere."""
    own = _name(region)
    if not own or not region.short_caption.startswith(own):
        return
    others = [
        other
        for other in regions
        if not other.is_whole_image and not _overlap(region.box_xyxy, other.box_xyxy)
    ]
    shared = set(normalised(own)) - {"left", "right"}
    for name in _shuffled(region, sorted({_name(other) for other in others} - {""})):
        if not shared & set(normalised(name)) - {"a", "an", "the"}:
            yield name + region.short_caption[len(own) :]


def _other_sides(region: Region) -> Iterator[str]:
    """The caption with the other side, if the source's name has one."""
    sides = [word for word in normalised(region.phrase) if word in MIRRORED]
    if len(sides) == 1:
        places = list(re.finditer(rf"\b{sides[0]}\b", region.short_caption))
        if len(places) == 1:
            start, end = places[0].span()
            yield _replaced(region.short_caption, start, end, MIRRORED[sides[0]])


def _other_places(region: Region, measures: Measures) -> Iterator[str]:
    """The caption with another place, if it has the one that was measured."""
    row, column = measures.place.row, measures.place.column
    moved = [(row, COLUMNS[column]), (ROWS[row], column), (ROWS[row], COLUMNS[column])]
    for picture in ("picture", "image", "photo"):
        said = POSITIONS[row, column].format(picture)
        if said in region.short_caption:
            for place in moved:
                yield region.short_caption.replace(said, POSITIONS[place].format(picture))


def _name(region: Region) -> str:
    """How captions by rules call a region; empty if its phrase says nothing."""
    phrase = clean_phrase(region.phrase)
    return noun_of(phrase, region.image_caption).mention if phrase else ""


def _overlap(first: Box, second: Box) -> bool:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second))
    return width > 0 and height > 0 and width * height > OVERLAP_SHARE * smaller


def _replaced(caption: str, start: int, end: int, word: str) -> str:
    """The caption with other words, and the article before them that they need."""
    before = re.sub(r"\ban? $", f"{words.article(word)} ", caption[:start])
    return before + word + caption[end:]


def _shuffled(region: Region, names: Sequence[str]) -> list[str]:
    """The names in an order of the region's own."""
    return sorted(
        names, key=lambda name: hashlib.sha256(f"{region.region_id}/{name}".encode()).digest()
    )
