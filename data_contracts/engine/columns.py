"""Columns derived for rules: every row gets a value, and a damaged row gets one that fails.

Great Expectations passes over missing values, so a rule's column must not have any.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.engine.tables import Columns

Floats = npt.NDArray[np.float64]
# Tags, entities and the reasoning marks of language models.
MARKUP = r"<\s*/?\s*[A-Za-z!|][^<>]*>|&#?\w{2,8};|</?think|```"
NUM_LANGUAGE_SAMPLES = 1000  # a chunk: judging one text takes 0.1 ms


def fixed_lists(column: Any, length: int) -> Floats:
    """A list column as an array [N, length]; lists of another length are NaN."""
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    fits = pc.fill_null(pc.equal(pc.list_value_length(lists), length), False)
    fits = fits.to_numpy(zero_copy_only=False)
    values = np.full((len(lists), length), np.nan)
    flat = pc.list_flatten(lists.filter(pa.array(fits))).cast(pa.float64())
    values[fits] = flat.to_numpy(zero_copy_only=False).reshape(-1, length)
    return values


def failing_if_nan(values: Floats, failing: float) -> Floats:
    """Replace NaN, which rules would pass over, by a value that fails."""
    return np.where(np.isnan(values), failing, values)


def numbers(chunk: pa.Table, name: str) -> Floats:
    """A numeric column as floats; missing values are NaN."""
    values: Floats = pc.fill_null(chunk[name].cast(pa.float64()), float("nan")).to_numpy()
    return values


def as_bools(column: Any) -> npt.NDArray[np.bool_]:
    """An Arrow column of truth values; a missing one is False."""
    return np.asarray(pc.fill_null(column, False)).astype(bool)


def box_columns(boxes: Floats, width: Floats | float, height: Floats | float) -> Columns:
    """How far boxes [N, 4] (xyxy) reach outside their image, and their shorter side."""
    x1, y1, x2, y2 = boxes.T
    outside = np.maximum.reduce([-x1, -y1, x2 - width, y2 - height])
    return {
        "box_outside": failing_if_nan(outside, np.inf),
        "box_shorter_side": failing_if_nan(np.minimum(x2 - x1, y2 - y1), -np.inf),
    }


def num_words(column: Any) -> npt.NDArray[np.int64]:
    """The number of words of each text; 0 where it is missing."""
    trimmed = pc.fill_null(pc.utf8_trim_whitespace(column), "")
    counts = np.asarray(pc.list_value_length(pc.utf8_split_whitespace(trimmed)))
    return np.where(np.asarray(pc.utf8_length(trimmed)) > 0, counts, 0).astype(np.int64)


def has_markup(chunk: pa.Table, names: list[str]) -> npt.NDArray[np.bool_]:
    """Whether any of a row's texts has HTML, entities or reasoning marks in it."""
    found = np.zeros(len(chunk), dtype=bool)
    for name in names:
        match = pc.match_substring_regex(chunk[name], MARKUP, ignore_case=True)
        found |= as_bools(match)
    return found


def languages(column: Any, is_asked: npt.NDArray[np.bool_]) -> pa.Array:
    """The language of evenly spread texts as ISO 639-1; null where it was not looked at."""
    import py3langid

    asked = np.flatnonzero(is_asked)
    places = asked[:: max(1, -(-len(asked) // NUM_LANGUAGE_SAMPLES))]
    codes: list[str | None] = [None] * len(column)
    for place, text in zip(places.tolist(), column.take(pa.array(places)).to_pylist(), strict=True):
        codes[place] = py3langid.classify(text or "")[0]
    return pa.array(codes, type=pa.string())


SHA256, PHASH = r"^[0-9a-f]{64}$", r"^[0-9a-f]{16}$"
URL = r"^(?:https?|s3|file)://"
MASK_SOURCE = r"^(?:record|grabcut|box|sam:\S+)$"
UNDECIDED = ""  # the split of a region before the data set is packed
MAX_PHRASE_WORDS = 60
BOX_TOLERANCE = 1e-6  # how far a box may reach outside its image
