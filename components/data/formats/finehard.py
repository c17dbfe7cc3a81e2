"""Read FineHARD's annotations (arXiv:2505.05071, huggingface.co/datasets/qihoo360/FineHARD).

A file of `jsonfiles/` is a list of images:

    {"f_path": "grit-20m/data-12m/coyo_image_0/00069/000699825.jpg",
     "caption": "a long text", "short_caption": "a short one",
     "bbox_info": [{"bbox": [x1, y1, x2, y2, score], "short_expr": "…", "long_expr": "…",
                    "flag_short_neg": 1, "short_expr_negs": {"0": "…", …, "9": "…"}}]}

Boxes are shares of the image's sides; the score may be missing. `short_expr_negs` are captions that
differ from `short_expr` in an attribute and are wrong; the flag says that there are any.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.data.formats.values import (
    BadValueError,
    mended,
    read_flag,
    read_numbers,
    read_text,
    safe_path,
    shown,
)
from data_contracts.captions import HELD_LONG, HELD_SHORT, Words
from data_contracts.reasons import FineHardReason, ImportReason
from pixclip.masks import Box

BOX_TOLERANCE = 1e-3  # how far a box may leave the image by rounding, in shares of its sides
NO_SCORE = 1.0
WHOLE = "image"  # the region that is the image itself


@dataclass(frozen=True, slots=True)
class FineTexts:
    """What is said of an image or of a region of it."""

    short: str
    long: str


@dataclass(frozen=True, slots=True)
class FineRegion:
    """An entry of `bbox_info`, or why it cannot be used."""

    name: str  # what it is called in the quarantine
    fault: BadValueError | None = None
    box: Box = (0.0, 0.0, 1.0, 1.0)  # x1, y1, x2, y2 as shares of the image's sides
    score: float = NO_SCORE
    texts: FineTexts = FineTexts("", "")
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FineImage:
    """An image with its regions; `whole` is the region that is the image itself."""

    place: str  # file and number of the entry
    file: str  # its path below the images; "" if there is none
    whole: FineRegion
    regions: tuple[FineRegion, ...]
    fault: BadValueError | None = None  # why nothing of it can be used


@dataclass(frozen=True, slots=True)
class FineRules:
    """What the settings ask of an entry."""

    path_prefixes: Sequence[str]
    num_negatives: int


def read_image(entry: Any, place: str, rules: FineRules) -> FineImage:
    """An entry; what is wrong with it, or with a region, is kept beside it."""
    if not isinstance(entry, dict):
        fault = BadValueError(ImportReason.NO_OBJECT, f"{shown(entry)} is not a JSON object")
        return FineImage(place, "", FineRegion(WHOLE, fault), (), fault)
    regions = tuple(_regions(entry.get("bbox_info"), rules))
    try:
        whole = FineRegion(WHOLE, texts=_texts(entry, "short_caption", "caption"))
    except BadValueError as fault:
        whole = FineRegion(WHOLE, fault)
    try:
        return FineImage(place, _file(entry.get("f_path"), rules), whole, regions)
    except BadValueError as fault:
        return FineImage(place, "", whole, regions, fault)


def _file(value: Any, rules: FineRules) -> str:
    if not isinstance(value, str):
        raise BadValueError(ImportReason.BAD_FILE_NAME, f"'f_path' is {shown(value)}, not a text")
    fits = next((start for start in rules.path_prefixes if value.startswith(start)), "")
    path = safe_path(value[len(fits) :])
    if mended(path) != path:
        raise BadValueError(ImportReason.BAD_FILE_NAME, f"'f_path' is {shown(value)}, no UTF-8")
    return path


def _regions(boxes: Any, rules: FineRules) -> Iterator[FineRegion]:
    if boxes is None:
        return
    if not isinstance(boxes, list):
        fault = BadValueError(ImportReason.BAD_BOX, f"'bbox_info' is {shown(boxes)}, not a list")
        yield FineRegion("bbox_info", fault)
        return
    for number, entry in enumerate(boxes):
        name = f"bbox_info[{number}]"
        try:
            yield _region(entry, name, rules)
        except BadValueError as fault:
            yield FineRegion(name, fault)


def _region(entry: Any, name: str, rules: FineRules) -> FineRegion:
    if not isinstance(entry, dict):
        raise BadValueError(ImportReason.NO_OBJECT, f"{shown(entry)} is not a JSON object")
    box, score = _box(entry.get("bbox"))
    texts = _texts(entry, "short_expr", "long_expr")
    negatives: tuple[str, ...] = ()
    if read_flag(entry.get("flag_short_neg"), "flag_short_neg"):
        negatives = _negatives(entry.get("short_expr_negs"), texts.short, rules.num_negatives)
    return FineRegion(name, None, box, score, texts, negatives)


def _box(value: Any) -> tuple[Box, float]:
    """Box and score.

    Raises:
        BadValueError: they are no numbers, or the box has no area in the image.
    """
    numbers = read_numbers(value) if isinstance(value, list) and len(value) in (4, 5) else None
    if numbers is None:
        raise BadValueError(
            ImportReason.BAD_BOX, f"'bbox' is {shown(value)}, not four numbers and a score"
        )
    x1, y1, x2, y2, score = (*numbers, NO_SCORE)[:5]
    if min(x1, y1) < -BOX_TOLERANCE or max(x2, y2) > 1 + BOX_TOLERANCE:
        raise BadValueError(
            FineHardReason.BOX_OUTSIDE_IMAGE, f"'bbox' is {value}; shares are from 0 to 1"
        )
    x1, y1, x2, y2 = (min(max(number, 0.0), 1.0) for number in (x1, y1, x2, y2))
    if x2 <= x1 or y2 <= y1:
        raise BadValueError(FineHardReason.EMPTY_BOX, f"'bbox' is {value}")
    if not 0 <= score <= 1:
        raise BadValueError(ImportReason.BAD_BOX, f"the score in 'bbox' is {score:g}, not 0 to 1")
    return (x1, y1, x2, y2), score


def _texts(entry: Mapping[str, Any], short: str, long: str) -> FineTexts:
    texts = FineTexts(*(read_text(entry.get(name), name) for name in (short, long)))
    _require_words(texts.short, short, HELD_SHORT)
    _require_words(texts.long, long, HELD_LONG)
    if len(texts.long.split()) < len(texts.short.split()):
        raise BadValueError(
            FineHardReason.LONG_TEXT_SHORTER, f"'{long}' has fewer words than '{short}'"
        )
    return texts


def _require_words(text: str, name: str, limits: Words) -> None:
    if (number := len(text.split())) > limits.most:
        raise BadValueError(
            FineHardReason.TOO_LONG, f"'{name}' has {number} words, at most {limits.most} are held"
        )


def _negatives(value: Any, own: str, number: int) -> tuple[str, ...]:
    """Wrong captions.

    Raises:
        BadValueError: there are more or fewer, one is no text, or one is the caption itself.
    """
    texts = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(texts, list) or len(texts) != number:
        found = len(texts) if isinstance(texts, list) else shown(value)
        raise BadValueError(
            FineHardReason.WRONG_NEGATIVES,
            f"'flag_short_neg' is 1, 'short_expr_negs' has {found}, not {number} texts",
        )
    read = tuple(read_text(text, "short_expr_negs") for text in texts)
    if own.lower() in (text.lower() for text in read):
        raise BadValueError(
            FineHardReason.WRONG_NEGATIVES, "one of 'short_expr_negs' is 'short_expr' itself"
        )
    return read
