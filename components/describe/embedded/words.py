"""Put measures into words: colours, outline, surface, size, position, relations, ranks."""

from collections.abc import Sequence

from components.describe.embedded.colours import Colour
from components.describe.embedded.layout import Place, Relation
from components.describe.embedded.nouns import article
from components.describe.embedded.shape import Shape

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
