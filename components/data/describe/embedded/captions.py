"""Build the captions of a region from its measures; the region's id chooses among wordings."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from components.data.describe.embedded import words
from components.data.describe.embedded.measure import Measures
from components.data.describe.embedded.words import Noun, another, sentence
from components.data.describe.scenes import WordLimits
from data_contracts.captions import RULED_LONG, RULED_SHORT_MOST

ROOM_WORDS = 20  # between the fewest and the most: one more sentence must fit
NUM_APPEARANCES = 2  # so many predicates at the start are about what the region looks like


@dataclass(frozen=True)
class Captions:
    """The texts of one region."""

    object_caption: str
    context_caption: str
    long_caption: str  # may be outside its limits if too little was measured
    short_caption: str


@dataclass(frozen=True)
class Writer:
    """What the captions of one region are made of; `nouns` are those of all regions."""

    measures: Measures
    nouns: Sequence[Noun]
    index: int  # of the region in its scene

    def write(self, limits: WordLimits) -> Captions:
        """All captions of the region."""
        return Captions(
            self.object_caption(),
            self.context_caption(),
            self.long_caption(limits),
            self.short_caption(limits),
        )

    def object_caption(self) -> str:
        """What the region looks like, by itself."""
        outline = words.outline_phrase(self.measures.shape)
        first = self._choose(
            "object",
            f"{self._this_is} {self.noun.mention}, {self.colours}, with {outline}.",
            f"{sentence(self.noun.reference)} {self._be} {self.colours}, with {outline}.",
            f"{sentence(self.noun.mention)} with {outline}, {self.colours}.",
        )
        own = "Their" if self.noun.is_plural else "The"
        return f"{first} {own} surface looks {self.surface}."

    def context_caption(self) -> str:
        """Where the region is and how it stands to the others."""
        relations = f", {self.relations}" if self.relations else ""
        first = f"{sentence(self.noun.reference)} {self._be} {self.position}{relations}."
        told = {"size", "surroundings", "rank", "comparison", "edges"}
        facts = [text for name, text in self._facts if name in told]
        return " ".join([first, *self._sentences(facts)])

    def long_caption(self, limits: WordLimits) -> str:
        """Appearance and place in one text, as long as asked for."""
        fewest, most = long_limits(limits)
        spread = (most - fewest) * 0.6
        wanted = fewest + round(spread * self._digest("length") / 255)
        text = self._opening()
        facts: list[str] = []
        for _, fact in self._facts:
            longer = " ".join([text, *self._sentences([*facts, fact])])
            if num_words(longer) <= most:
                facts.append(fact)
            if num_words(" ".join([text, *self._sentences(facts)])) >= wanted:
                break
        return " ".join([text, *self._sentences(facts)])

    def short_caption(self, limits: WordLimits) -> str:
        """A phrase that tells the region from the others."""
        mention, position = self.noun.mention, self.position
        colours = words.short_colour_phrase(self.measures.colours)
        candidates = (f"{mention}, {colours}, {position}", f"{mention} {position}", mention)
        most = min(limits.max_short, max(RULED_SHORT_MOST, limits.min_short))
        return next((text for text in candidates if num_words(text) <= most), mention)

    @property
    def noun(self) -> Noun:
        """The region's own noun."""
        return self.nouns[self.index]

    @cached_property
    def colours(self) -> str:
        """The colours inside the mask."""
        mostly = self._choose("mostly", "mostly", "mainly", "largely")
        some = self._choose("some", "some", "areas of", "touches of")
        return words.colour_phrase(self.measures.colours, mostly, some)

    @cached_property
    def surface(self) -> str:
        """How the surface looks."""
        return words.surface_word(self.measures.edge_density)

    @cached_property
    def position(self) -> str:
        """Where in the picture."""
        return words.position_phrase(self.measures.place, self._picture)

    @cached_property
    def relations(self) -> str:
        """Where with respect to the nearest others."""
        return words.relations_phrase(self.measures.place.relations, self._others(first=True))

    def _opening(self) -> str:
        mention, relations = self.noun.mention, f", {self.relations}" if self.relations else ""
        seen = self._choose("seen", "can be seen", "appears", "is shown")
        if self.noun.is_plural:
            seen = self._choose("seen", "can be seen", "appear", "are shown")
        return self._choose(
            "opening",
            f"{sentence(mention)}, {self.colours}, {seen} {self.position}{relations}.",
            f"{sentence(self.position)} {self._be} {mention}, {self.colours}{relations}.",
            f"{self._this_is} {mention}, {self.colours}, {self.position}{relations}.",
        )

    @cached_property
    def _facts(self) -> list[tuple[str, str]]:
        """Predicates in an order of the region's own; the first is about its appearance."""
        facts = [(name, text) for name, text in self._predicates() if text]
        first = self._digest("appearance") % NUM_APPEARANCES
        others = facts[:first] + facts[first + 1 :]
        start = self._digest("facts") % len(others)
        return [facts[first], *others[start:], *others[:start]]

    def _predicates(self) -> Iterator[tuple[str, str]]:
        have = "have" if self.noun.is_plural else "has"
        s = "" if self.noun.is_plural else "s"
        measures, place = self.measures, self.measures.place
        yield "outline", f"{have} {words.outline_phrase(measures.shape)}"
        yield "surface", f"show{s} a {self.surface} surface"
        yield "rank", _after(self._be, words.ranks_phrase(place))
        yield "size", f"cover{s} {words.size_phrase(measures.image_share)} of the {self._picture}"
        around = words.join([colour.words for colour in measures.surroundings[:2]])
        yield "surroundings", f"{have} {around} surroundings" if around else ""
        compared = words.comparison_phrase(place, self._others(first=False))
        yield "comparison", _after(self._be, compared)
        edges = words.edges_phrase(place, self._picture)
        yield "edges", _after("touch" if self.noun.is_plural else "touches", edges)

    def _sentences(self, facts: Sequence[str]) -> list[str]:
        """Predicates as sentences, two in each."""
        pairs = [facts[start : start + 2] for start in range(0, len(facts), 2)]
        return [f"{self.noun.pronoun} {' and '.join(pair)}." for pair in pairs]

    def _others(self, *, first: bool) -> list[str]:
        """How each region of the scene is called in this region's captions."""
        return [
            another(noun)
            if noun.mention == self.noun.mention
            else noun.mention
            if first
            else noun.reference
            for noun in self.nouns
        ]

    @property
    def _picture(self) -> str:
        return self._choose("picture", "picture", "image", "photo")

    @property
    def _be(self) -> str:
        return "are" if self.noun.is_plural else "is"

    @property
    def _this_is(self) -> str:
        return "These are" if self.noun.is_plural else "This is"

    def _choose(self, what: str, *options: str) -> str:
        return options[self._digest(what) % len(options)]

    def _digest(self, what: str) -> int:
        return hashlib.sha256(f"{self.measures.region.region_id}/{what}".encode()).digest()[0]


def long_limits(limits: WordLimits) -> tuple[int, int]:
    """The fewest and the most words of a long caption: 30 to 60 where the settings allow it."""
    has_room = limits.max_long >= RULED_LONG.fewest + ROOM_WORDS
    fewest = max(limits.min_long, RULED_LONG.fewest) if has_room else limits.min_long
    return fewest, min(limits.max_long, max(RULED_LONG.most, fewest + ROOM_WORDS))


def num_words(text: str) -> int:
    """The number of words of a text."""
    return len(text.split())


def _after(verb: str, text: str) -> str:
    return f"{verb} {text}" if text else ""
