"""The filters: each decides one thing for all regions of a batch, and can say why.

They are asked in the order of `RULES`; the first one that a region breaks is its reason.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.data.select.regions import (
    BOX_TOLERANCE,
    MAX_SIDE_PX,
    Bools,
    Ints,
    Regions,
    clipped_box,
    lengths,
    marks,
    own_values,
)
from components.data.select.settings import SelectSettings
from data_contracts.engine.columns import MAX_PHRASE_WORDS, UNDECIDED, URL
from data_contracts.engine.conform import FLAW, FLAW_DETAIL, FLAWS
from data_contracts.engine.mask_counts import read_counts
from data_contracts.reasons import SelectReason
from pixclip.data.layout import SPLITS

NEEDED = ["id", "url", "caption", "width", "height"]  # of a record


@dataclass(frozen=True)
class Rule:
    """A filter; `breaks` marks the regions to drop, `explain` describes one of them to a person."""

    reason: str
    breaks: Callable[[Regions, SelectSettings], Bools]
    explain: Callable[[Regions, int, SelectSettings], str]


def flaw(reason: str) -> Rule:
    """The rule that the record has no such flaw as the contract's reading finds."""

    def breaks(regions: Regions, settings: SelectSettings) -> Bools:
        is_found = pc.fill_null(pc.equal(regions.records.column(FLAW), reason), False)
        return np.asarray(marks(is_found)[regions.record])

    def explain(regions: Regions, i: int, settings: SelectSettings) -> str:
        return str(regions.records.column(FLAW_DETAIL)[int(regions.record[i])].as_py())

    return Rule(reason, breaks, explain)


def missing_value(regions: Regions, settings: SelectSettings) -> Bools:
    """The record lacks its id, address, caption or size."""
    records = regions.records
    is_missing = np.zeros(records.num_rows, dtype=bool)
    for name in NEEDED:
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


def unknown_address(regions: Regions, settings: SelectSettings) -> Bools:
    """The address is of no kind that can be fetched."""
    is_known = pc.fill_null(pc.match_substring_regex(regions.records.column("url"), URL), True)
    return np.asarray(~marks(is_known)[regions.record])


def unknown_split(regions: Regions, settings: SelectSettings) -> Bools:
    """The source marks the record for a split that the data set has not."""
    splits = pc.fill_null(regions.records.column("split"), "")
    return np.asarray(~marks(pc.is_in(splits, pa.array([UNDECIDED, *SPLITS])))[regions.record])


def impossible_size(regions: Regions, settings: SelectSettings) -> Bools:
    """The declared size is beyond that of any image."""
    return np.maximum(regions.width_px, regions.height_px) > MAX_SIDE_PX


def impossible_similarity(regions: Regions, settings: SelectSettings) -> Bools:
    """The similarity is no cosine; an unknown one passes."""
    return np.abs(regions.similarity) > 1


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


def impossible_score(regions: Regions, settings: SelectSettings) -> Bools:
    """The score is no probability."""
    return (regions.score < 0) | (regions.score > 1)


def damaged_mask(regions: Regions, settings: SelectSettings) -> Bools:
    """The source's own mask is not one of an image of the declared size."""
    rows = np.arange(len(regions))
    counts = own_values(regions, rows, "masks")
    if counts.null_count == len(counts):
        return np.zeros(len(regions), dtype=bool)
    num_pixels = regions.width_px * regions.height_px
    is_whole = read_counts(counts).num_pixels == num_pixels
    return np.asarray(marks(counts.is_valid()) & ~is_whole)


def wrong_offsets(regions: Regions, settings: SelectSettings) -> Bools:
    """The offsets cut no text out of the caption."""
    return np.fromiter((not phrase for phrase in regions.phrases), dtype=bool, count=len(regions))


def box_outside_image(regions: Regions, settings: SelectSettings) -> Bools:
    """The box leaves the image by more than rounding."""
    is_outside = (regions.box < -BOX_TOLERANCE) | (regions.box > 1 + BOX_TOLERANCE)
    return np.asarray(is_outside.any(axis=1))


def empty_box(regions: Regions, settings: SelectSettings) -> Bools:
    """The box ends before it starts, or what lies inside the image of it does."""
    box = clipped_box(regions.box)
    return np.asarray((box[:, 2] <= box[:, 0]) | (box[:, 3] <= box[:, 1]))


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


def nameless_phrase(regions: Regions, settings: SelectSettings) -> Bools:
    """The phrase has no letter and no digit: it names nothing."""
    return np.fromiter(
        (not any(map(str.isalnum, phrase)) for phrase in regions.phrases),
        dtype=bool,
        count=len(regions),
    )


def short_phrase(regions: Regions, settings: SelectSettings) -> Bools:
    """The phrase is too short to name something."""
    return _phrase_chars(regions) < settings.min_phrase_chars


def long_phrase(regions: Regions, settings: SelectSettings) -> Bools:
    """The phrase is more than a noun phrase."""
    num_words = np.fromiter(
        (len(phrase.split()) for phrase in regions.phrases), dtype=np.int64, count=len(regions)
    )
    is_long = _phrase_chars(regions) > settings.max_phrase_chars
    return np.asarray(is_long | (num_words > MAX_PHRASE_WORDS))


def _phrase_chars(regions: Regions) -> Ints:
    return np.fromiter(map(len, regions.phrases), dtype=np.int64, count=len(regions))


def _explain_size(regions: Regions, i: int, settings: SelectSettings) -> str:
    size = f"{regions.width_px[i]:g} x {regions.height_px[i]:g}"
    return f"image of {size} pixels, shortest side allowed {settings.min_image_side_px}"


def _explain_address(regions: Regions, i: int, settings: SelectSettings) -> str:
    url = regions.records.column("url")[int(regions.record[i])].as_py()
    return f"{url!r:.100} does not begin with http://, https://, s3:// or file://"


def _explain_split(regions: Regions, i: int, settings: SelectSettings) -> str:
    split = regions.records.column("split")[int(regions.record[i])].as_py()
    return f"split {split!r:.80}, known are {', '.join(SPLITS)}, or none"


def _explain_impossible_size(regions: Regions, i: int, settings: SelectSettings) -> str:
    return f"image of {regions.width_px[i]:g} x {regions.height_px[i]:g} pixels"


def _explain_mask(regions: Regions, i: int, settings: SelectSettings) -> str:
    size = f"{regions.width_px[i]:g} x {regions.height_px[i]:g}"
    return f"the mask's counts do not cover an image of {size} pixels"


def _explain_nameless(regions: Regions, i: int, settings: SelectSettings) -> str:
    return f"the phrase {regions.phrases[i]!r:.80} has no letter and no digit"


def _explain_no_similarity(regions: Regions, i: int, settings: SelectSettings) -> str:
    return f"similarity {regions.similarity[i]:.9g}, possible are -1 to 1"


def _explain_no_score(regions: Regions, i: int, settings: SelectSettings) -> str:
    return f"score {regions.score[i]:.9g}, possible are 0 to 1"


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
    phrase = regions.phrases[i]
    return (
        f"phrase of {len(phrase)} characters in {len(phrase.split())} words, "
        f"allowed {allowed} characters and {MAX_PHRASE_WORDS} words"
    )


def _explain_missing(regions: Regions, i: int, settings: SelectSettings) -> str:
    record = regions.records.select(NEEDED).slice(int(regions.record[i]), 1).to_pylist()[0]
    names = [name for name in NEEDED if record[name] is None or not str(record[name]).strip()]
    return f"the record has no {', '.join(names)}"


def _explain_masks(regions: Regions, i: int, settings: SelectSettings) -> str:
    record = int(regions.record[i])
    masks, boxes = (
        int(lengths(regions.records.column(name).slice(record, 1))[0])
        for name in ("masks", "ref_exps")
    )
    return f"{masks} masks for {boxes} regions"


def _explain_malformed(regions: Regions, i: int, settings: SelectSettings) -> str:
    values = regions.records.column("ref_exps")[int(regions.record[i])].values[regions.index[i]]
    return f"{len(values.as_py() or [])} numbers instead of 7"


# Of a whole record first, so that the loss of an image is reported as such.
RECORD_RULES = (
    *map(flaw, FLAWS),
    Rule(SelectReason.MISSING_VALUE, missing_value, _explain_missing),
    Rule(SelectReason.UNKNOWN_ADDRESS, unknown_address, _explain_address),
    Rule(SelectReason.UNKNOWN_SPLIT, unknown_split, _explain_split),
    Rule(SelectReason.MASKS_NOT_PARALLEL, masks_not_parallel, _explain_masks),
    Rule(SelectReason.IMPOSSIBLE_SIZE, impossible_size, _explain_impossible_size),
    Rule(SelectReason.SMALL_IMAGE, small_image, _explain_size),
    Rule(SelectReason.IMPOSSIBLE_SIMILARITY, impossible_similarity, _explain_no_similarity),
    Rule(SelectReason.LOW_CLIP_SIMILARITY, low_clip_similarity, _explain_similarity),
)
REGION_RULES = (
    Rule(SelectReason.MALFORMED_REGION, malformed_region, _explain_malformed),
    Rule(SelectReason.WRONG_OFFSETS, wrong_offsets, _explain_offsets),
    Rule(SelectReason.NOT_FINITE, not_finite, _explain_box),
    Rule(SelectReason.IMPOSSIBLE_SCORE, impossible_score, _explain_no_score),
    Rule(SelectReason.BOX_OUTSIDE_IMAGE, box_outside_image, _explain_box),
    Rule(SelectReason.EMPTY_BOX, empty_box, _explain_box),
    Rule(SelectReason.LOW_SCORE, low_score, _explain_score),
    Rule(SelectReason.TINY_BOX, tiny_box, _explain_side),
    Rule(SelectReason.SMALL_BOX, small_box, _explain_share),
    Rule(SelectReason.LARGE_BOX, large_box, _explain_share),
    Rule(SelectReason.PHRASE_NAMES_NOTHING, nameless_phrase, _explain_nameless),
    Rule(SelectReason.SHORT_PHRASE, short_phrase, _explain_phrase),
    Rule(SelectReason.LONG_PHRASE, long_phrase, _explain_phrase),
    Rule(SelectReason.DAMAGED_MASK, damaged_mask, _explain_mask),
)
