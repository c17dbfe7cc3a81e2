"""Captions of composed scenes, with the character offsets of each object's name."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from components.sample_grit.layout import place_name
from components.sample_grit.scenes import SceneObject

OPENINGS = (
    "",
    "A composed scene with ",
    "A picture of ",
    "In this scene there are three things: ",
    "The image shows ",
    "Here one sees ",
)


@dataclass(frozen=True)
class Caption:
    """A caption; `spans` are the [start, end) character offsets of the objects' names."""

    text: str
    spans: tuple[tuple[int, int], ...]


def write_caption(
    objects: Sequence[SceneObject], width_px: int, height_px: int, random: Random
) -> Caption:
    """One sentence that names every object and says where it is."""
    text, spans = random.choice(OPENINGS), []
    for number, item in enumerate(objects):
        if number:
            text += " and " if number == len(objects) - 1 else ", "
        phrase = item.phrase if text else item.phrase[0].upper() + item.phrase[1:]
        spans.append((len(text), len(text) + len(phrase)))
        text += f"{phrase} {_where(item, width_px, height_px)}"
    return Caption(f"{text}.", tuple(spans))


def _where(item: SceneObject, width_px: int, height_px: int) -> str:
    x1, y1, x2, y2 = item.box
    return place_name((x1 + x2) / 2 / width_px, (y1 + y2) / 2 / height_px)
