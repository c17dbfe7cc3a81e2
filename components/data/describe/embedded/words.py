"""Put measures into words, and a region's untrusted phrase into a noun for sentences."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from components.data.describe.embedded.colours import Colour
from components.data.describe.embedded.layout import Place, Relation
from components.data.describe.embedded.measure import Shape
from components.data.llm.prompt import with_bounded_marks

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
POSITIONS = {
    ("upper", "left"): "in the upper left of the {}",
    ("upper", "centre"): "at the top centre of the {}",
    ("upper", "right"): "in the upper right of the {}",
    ("middle", "left"): "on the left side of the {}",
    ("middle", "centre"): "in the middle of the {}",
    ("middle", "right"): "on the right side of the {}",
    ("lower", "left"): "in the lower left of the {}",
    ("lower", "centre"): "at the bottom centre of the {}",
    ("lower", "right"): "in the lower right of the {}",
}
# Mean step of lightness (0 to 255) between neighbouring pixels, up to which a word holds.
SURFACES = ((3.5, "smooth"), (7.5, "softly shaded"), (13.0, "textured"))
ROUGHEST = "finely detailed"
LONG, ELONGATED = 2.8, 1.5


def join(items: Sequence[str]) -> str:
    """`a`, `a and b` or `a, b and c`."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def colour_phrase(colours: Sequence[Colour], mostly: str = "mostly", some: str = "some") -> str:
    """What can follow `is`: `mostly dark brown with some black and tan`."""
    first, others = colours[0], [colour.words for colour in colours[1:]]
    if not others:
        return f"almost entirely {first.words}" if first.share > 0.85 else f"{mostly} {first.words}"
    if first.share >= 0.5:
        return f"{mostly} {first.words} with {some} {join(others)}"
    return f"a mix of {join([first.words, *others])}"


def short_colour_phrase(colours: Sequence[Colour]) -> str:
    """The one or two colours that tell most: `mostly dark brown`, `grey and tan`."""
    if colours[0].share >= 0.5 or len(colours) == 1:
        return f"mostly {colours[0].words}"
    return f"{colours[0].words} and {colours[1].words}"


def outline_phrase(shape: Shape) -> str:
    """A noun phrase such as `an elongated outline lying horizontally`."""
    if shape.elongation >= ELONGATED:
        kind = "long, narrow" if shape.elongation >= LONG else "elongated"
        if shape.solidity < 0.75:
            kind = f"{kind}, irregular".replace("narrow, ", "narrow and ")
        return f"{article(kind)} {kind} outline {_direction(shape.angle_deg)}"
    if shape.box_fill > 0.93:
        return "a boxy outline with straight sides"
    if shape.solidity > 0.94:
        return "a rounded, compact outline"
    if shape.solidity < 0.75:
        return "an irregular outline with deep gaps"
    return "a fairly compact outline"


def surface_word(edge_density: float) -> str:
    """How a surface looks by its steps of lightness."""
    return next((word for limit, word in SURFACES if edge_density < limit), ROUGHEST)


def size_phrase(image_share: float) -> str:
    """A share of the picture: `about 7 percent`."""
    percent = round(100 * image_share)
    return f"about {percent} percent" if percent else "less than one percent"


def position_phrase(place: Place, picture: str) -> str:
    """Where in a 3 x 3 grid: `in the lower left of the picture`."""
    return POSITIONS[place.row, place.column].format(picture)


def edges_phrase(place: Place, picture: str) -> str:
    """The edges that are touched, or ""."""
    edges = place.touched_edges
    if not edges:
        return ""
    return f"the {join(edges)} edge{'s' if len(edges) > 1 else ''} of the {picture}"


def relations_phrase(relations: Sequence[Relation], mentions: Sequence[str]) -> str:
    """`to the left of a zebra and above an owl`, or ""; mentions go by region of the scene."""
    grouped: dict[str, list[str]] = {}
    for relation in relations:
        grouped.setdefault(relation_words(relation), []).append(mentions[relation.neighbour])
    parts = [f"{words} {join(named)}" for words, named in grouped.items()]
    return ", and ".join(parts) if any(" and " in part for part in parts) else join(parts)


def relation_words(relation: Relation) -> str:
    """The preposition of a relation: `just to the left of`."""
    side = f"to the {relation.horizontal} of" if relation.horizontal else ""
    words = " and ".join(filter(None, [relation.vertical, side]))
    if relation.is_overlapping:
        return f"{words} and partly overlapping" if words else "overlapping"
    if not words:
        return "close to"
    return f"just {words}" if relation.is_close else words


def comparison_phrase(place: Place, references: Sequence[str]) -> str:
    """`larger than the zebra but smaller than the owl`; "" if the ranks say it already."""
    grouped: dict[str, list[str]] = {}
    if {"largest", "smallest"} & set(place.ranks):
        return ""
    for relation in place.relations:
        grouped.setdefault(relation.size, []).append(references[relation.neighbour])
    parts = [f"{_SIZES[size]} {join(sorted(set(named)))}" for size, named in grouped.items()]
    return " but ".join(parts)


def ranks_phrase(place: Place) -> str:
    """`the leftmost and largest of the three named objects`, or ""."""
    if not place.ranks:
        return ""
    number = NUMBERS[place.num_regions] if place.num_regions < len(NUMBERS) else place.num_regions
    return f"the {join(place.ranks)} of the {number} named objects"


_SIZES = {"larger": "larger than", "smaller": "smaller than", "alike": "about as large as"}


def _direction(angle_deg: float) -> str:
    if abs(angle_deg) < 22.5:
        return "lying horizontally"
    if abs(angle_deg) > 67.5:
        return "standing upright"
    return f"rising towards the {'right' if angle_deg > 0 else 'left'}"


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


SINGULAR = _set("a an one this that each every another")
PLURAL = _set(
    "two three four five six seven eight nine ten these those several many few both various"
)
DEFINITE = _set("the his her its their my your our")
UNCERTAIN = _set("some any more most all")  # of one thing or of many
DETERMINERS = SINGULAR | PLURAL | DEFINITE | UNCERTAIN
# Where the name of a thing ends and what is said about it begins.
TAIL = re.compile(
    r"\s(?:of|in|on|at|with|from|by|for|near|behind|beside|under|over|next|to|that|which|who|and"
    r"|covered|wearing|holding|sitting|standing|riding|playing|looking|made)\s",
    re.IGNORECASE,
)
PEOPLE = _set(
    "man men woman women boy boys girl girls person persons people child children kid kids lady "
    "ladies guy guys fireman firemen astronaut astronauts bride groom worker workers soldier "
    "soldiers paratrooper rider riders skier skiers surfer surfers"
)
IRREGULAR_PLURALS = _set(
    "people men women children feet teeth mice geese firemen policemen leaves wolves"
)
SINGULAR_IN_S = _set("lens gas series species canvas atlas news bus octopus")
MAX_REFERENCE_WORDS = 5
MAX_PHRASE_CHARS = 2000  # more is no name of a thing; an address is looked for in the square of it
_TAG = re.compile(r"<[^<>]*>?")
_ADDRESS = re.compile(r"\S*(?:://|www\.)\S*", re.IGNORECASE)


@dataclass(frozen=True)
class Noun:
    """A phrase that fits into sentences."""

    mention: str  # at its first mention: `a red apple`
    reference: str  # afterwards: `the red apple`
    is_plural: bool
    is_person: bool

    @property
    def pronoun(self) -> str:
        """What stands for it at the start of a sentence."""
        if self.is_plural:
            return "They"
        return "This person" if self.is_person else "It"


def clean_phrase(text: str) -> str:
    """A phrase on one line without markup, addresses, control characters and odd punctuation."""
    text = unicodedata.normalize("NFKC", with_bounded_marks(text[:MAX_PHRASE_CHARS]))
    text = text[:MAX_PHRASE_CHARS]  # one character may become eighteen
    text = _ADDRESS.sub(" ", _TAG.sub(" ", text))
    kept = "".join(char if char.isalnum() or char in "'’-.,%" else " " for char in text)
    return " ".join(word.strip(".,-") for word in kept.split() if word.strip(".,-'’%"))


def noun_of(phrase: str, image_caption: str = "") -> Noun:
    """The noun of a cleaned phrase that is not empty."""
    words = phrase.split()
    first = words[0].lower()
    has_determiner = len(words) > 1 and (first in DETERMINERS or first.isdigit())
    rest = words[1:] if has_determiner else words
    core = " ".join(rest)
    head = TAIL.split(f"{core} ")[0].split()[-1].lower()
    is_plural = _is_plural(first if has_determiner else "", head)
    is_person = head in PEOPLE
    if not has_determiner:
        name = _is_name(words, image_caption)
        mention = core if name else f"the {_uncapitalised(core)}"
        return Noun(mention, _shortened(mention, is_plural, is_person), is_plural, is_person)
    mention = f"{first} {core}"
    article = first if first in DEFINITE else "the"
    keeps_number = first in PLURAL or first.isdigit()
    reference = f"the {mention}" if keeps_number and first != "both" else f"{article} {core}"
    return Noun(mention, _shortened(reference, is_plural, is_person), is_plural, is_person)


def another(noun: Noun) -> str:
    """The mention of a second thing of the same name."""
    core = noun.reference.removeprefix("the ")
    return f"the other {core}" if noun.is_plural else f"another {core}"


def sentence(text: str) -> str:
    """The text with a capital at its start."""
    return text[:1].upper() + text[1:]


def article(word: str) -> str:
    """`a` or `an`, by how a word of our own vocabulary starts."""
    return "an" if word[0] in "aeiou" else "a"


def _is_plural(determiner: str, head: str) -> bool:
    if determiner in SINGULAR:
        return False
    if determiner in PLURAL or (determiner.isdigit() and determiner != "1"):
        return True
    if head in IRREGULAR_PLURALS:
        return True
    ends_like_plural = head.endswith("s") and not head.endswith(("ss", "us", "is", "'s", "’s"))
    return ends_like_plural and head not in SINGULAR_IN_S


def _is_name(words: list[str], image_caption: str) -> bool:
    """Whether a phrase without a determiner is a proper name (`Mickey Mouse`)."""
    if not words[0][:1].isupper():
        return False
    if len(words) > 1:
        return all(word[:1].isupper() for word in words)
    # One capital word is a name unless it only starts a sentence.
    return re.search(rf"[a-z,] {re.escape(words[0])}\b", image_caption) is not None


def _uncapitalised(text: str) -> str:
    first, _, rest = text.partition(" ")
    # An abbreviation keeps its capitals, and so does a word before another name.
    is_plain = first[:1].isupper() and first[1:].islower() and not rest[:1].isupper()
    return f"{first.lower()} {rest}".strip() if is_plain else text


def _shortened(reference: str, is_plural: bool, is_person: bool) -> str:
    if len(reference.split()) <= MAX_REFERENCE_WORDS:
        return reference
    start = TAIL.split(reference)[0]
    if 1 < len(start.split()) <= MAX_REFERENCE_WORDS:
        return start
    if is_person:
        return "the people" if is_plural else "the person"
    return "the objects" if is_plural else "the object"
