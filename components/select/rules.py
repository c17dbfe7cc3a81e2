"""The filters: each decides one thing for all regions of a batch, and can say why.

They are asked in the order of `RULES`; the first one that a region breaks is its reason.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from components.select.regions import BOX_TOLERANCE, Bools, Ints, Regions, lengths, marks
from components.select.settings import SelectSettings


@dataclass(frozen=True)
class Rule:
    """A filter; `breaks` marks the regions to drop, `explain` tells one of them to a person."""

    reason: str
    breaks: Callable[[Regions, SelectSettings], Bools]
    explain: Callable[[Regions, int, SelectSettings], str]


def missing_value(regions: Regions, settings: SelectSettings) -> Bools:
    """The record lacks its id, address, caption or size."""
    records = regions.records
    is_missing = np.zeros(records.num_rows, dtype=bool)
    for name in ("id", "url", "caption", "width", "height"):
        is_missing |= marks(records.column(name).is_null())
    for name in ("url", "caption"):
        is_empty = pc.equal(pc.utf8_trim_whitespace(records.column(name)), "")
        is_missing |= marks(pc.fill_null(is_empty, True))
    return np.asarray(is_missing[regions.record])


def masks_not_parallel(regions: Regions, settings: SelectSettings) -> Bools:
    """The record has masks, but not one for each region."""
    masks = regions.records.column("masks")
    has_masks = marks(masks.is_valid())
    is_uneven = lengths(masks) != lengths(regions.records.column("ref_exps"))
    return np.asarray((has_masks & is_uneven)[regions.record])


def small_image(regions: Regions, settings: SelectSettings) -> Bools:
    """The declared image is too small to crop regions from."""
    return np.minimum(regions.width_px, regions.height_px) < settings.min_image_side_px


def low_clip_similarity(regions: Regions, settings: SelectSettings) -> Bools:
    """The caption hardly speaks of the image; an unknown similarity passes."""
    return regions.similarity < settings.min_clip_similarity


def malformed_region(regions: Regions, settings: SelectSettings) -> Bools:
    """The region has not its seven numbers."""
    return ~regions.is_whole


def not_finite(regions: Regions, settings: SelectSettings) -> Bools:
    """The box or the score is no number."""
    return ~(np.isfinite(regions.box).all(axis=1) & np.isfinite(regions.score))


def wrong_offsets(regions: Regions, settings: SelectSettings) -> Bools:
    """The offsets cut no text out of the caption."""
    return np.fromiter((not phrase for phrase in regions.phrases), dtype=bool, count=len(regions))


def box_outside_image(regions: Regions, settings: SelectSettings) -> Bools:
    """The box leaves the image by more than rounding."""
    is_outside = (regions.box < -BOX_TOLERANCE) | (regions.box > 1 + BOX_TOLERANCE)
    return np.asarray(is_outside.any(axis=1))


def empty_box(regions: Regions, settings: SelectSettings) -> Bools:
    """The box ends before it starts."""
    return (regions.box[:, 2] <= regions.box[:, 0]) | (regions.box[:, 3] <= regions.box[:, 1])


def low_score(regions: Regions, settings: SelectSettings) -> Bools:
    """The detector was not sure."""
    return regions.score < settings.min_score


def tiny_box(regions: Regions, settings: SelectSettings) -> Bools:
    """The box has too few pixels to show anything."""
    return regions.box_side_px < settings.min_box_side_px


def small_box(regions: Regions, settings: SelectSettings) -> Bools:
    """The box covers too little of the image."""
    return regions.box_share < settings.min_box_share


def large_box(regions: Regions, settings: SelectSettings) -> Bools:
    """The box is nearly the whole image: no region."""
    return regions.box_share > settings.max_box_share


def short_phrase(regions: Regions, settings: SelectSettings) -> Bools:
    """The phrase is too short to name something."""
    return _phrase_chars(regions) < settings.min_phrase_chars


def long_phrase(regions: Regions, settings: SelectSettings) -> Bools:
    """The phrase is more than a noun phrase."""
    return _phrase_chars(regions) > settings.max_phrase_chars


def _phrase_chars(regions: Regions) -> Ints:
    return np.fromiter(map(len, regions.phrases), dtype=np.int64, count=len(regions))


def _explain_size(regions: Regions, i: int, settings: SelectSettings) -> str:
    size = f"{regions.width_px[i]:g} x {regions.height_px[i]:g}"
    return f"image of {size} pixels, shortest side allowed {settings.min_image_side_px}"


def _explain_similarity(regions: Regions, i: int, settings: SelectSettings) -> str:
    return f"similarity {regions.similarity[i]:g}, lowest {settings.min_clip_similarity:g}"


def _explain_offsets(regions: Regions, i: int, settings: SelectSettings) -> str:
    start, end = regions.span[i]
    caption = regions.records.column("caption")[int(regions.record[i])].as_py()
    return f"offsets {start:g} to {end:g} of a caption of {len(caption)} characters"


def _explain_box(regions: Regions, i: int, settings: SelectSettings) -> str:
    return "box " + ", ".join(f"{value:.4f}" for value in regions.box[i])


def _explain_score(regions: Regions, i: int, settings: SelectSettings) -> str:
    return f"score {regions.score[i]:g}, lowest {settings.min_score:g}"


def _explain_side(regions: Regions, i: int, settings: SelectSettings) -> str:
    return f"side of {regions.box_side_px[i]:.1f} pixels, shortest {settings.min_box_side_px:g}"


def _explain_share(regions: Regions, i: int, settings: SelectSettings) -> str:
    allowed = f"{settings.min_box_share:g} to {settings.max_box_share:g}"
    return f"area {regions.box_share[i]:.5f} of the image, allowed {allowed}"


def _explain_phrase(regions: Regions, i: int, settings: SelectSettings) -> str:
    allowed = f"{settings.min_phrase_chars} to {settings.max_phrase_chars}"
    return f"phrase of {len(regions.phrases[i])} characters, allowed {allowed}"


def _explain_missing(regions: Regions, i: int, settings: SelectSettings) -> str:
    record = regions.records.slice(int(regions.record[i]), 1).to_pylist()[0]
    names = [
        name
        for name in ("id", "url", "caption", "width", "height")
        if record[name] is None or not str(record[name]).strip()
    ]
    return f"the record has no {', '.join(names)}"


def _explain_masks(regions: Regions, i: int, settings: SelectSettings) -> str:
    record = int(regions.record[i])
    masks, boxes = (
        int(lengths(regions.records.column(name))[record]) for name in ("masks", "ref_exps")
    )
    return f"{masks} masks for {boxes} regions"


def _explain_malformed(regions: Regions, i: int, settings: SelectSettings) -> str:
    nested = regions.records.column("ref_exps")[int(regions.record[i])].as_py()
    values = nested[int(regions.index[i])]
    return f"{len(values or [])} numbers instead of 7"


# Of a whole record first, so that a lost image is told as such.
RECORD_RULES = (
    Rule("missing_value", missing_value, _explain_missing),
    Rule("masks_not_parallel", masks_not_parallel, _explain_masks),
    Rule("small_image", small_image, _explain_size),
    Rule("low_clip_similarity", low_clip_similarity, _explain_similarity),
)
REGION_RULES = (
    Rule("malformed_region", malformed_region, _explain_malformed),
    Rule("wrong_offsets", wrong_offsets, _explain_offsets),
    Rule("not_finite", not_finite, _explain_box),
    Rule("box_outside_image", box_outside_image, _explain_box),
    Rule("empty_box", empty_box, _explain_box),
    Rule("low_score", low_score, _explain_score),
    Rule("tiny_box", tiny_box, _explain_side),
    Rule("small_box", small_box, _explain_share),
    Rule("large_box", large_box, _explain_share),
    Rule("short_phrase", short_phrase, _explain_phrase),
    Rule("long_phrase", long_phrase, _explain_phrase),
)
