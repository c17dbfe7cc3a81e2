"""`contrasted`: the captions with wrong ones beside them, which differ in one attribute."""

import re

import numpy as np
import pyarrow as pa

from data_contracts import captions
from data_contracts.captions import SHORT
from data_contracts.engine.columns import MARKUP
from data_contracts.engine.contract import Join
from data_contracts.engine.rules import between, holds
from data_contracts.engine.tables import Columns

MOST_NEGATIVES = 10  # of a region; FG-CLIP has as many
_MARKUP = re.compile(MARKUP, re.IGNORECASE)

KEY = captions.KEY
SCHEMA = captions.SCHEMA.append(
    pa.field("hard_negatives", pa.list_(pa.string()), nullable=False)  # may be empty
)
BUDGET = 0.0  # nothing is dropped here: a region without a wrong caption stays
JOINS = (Join("region_among_captions", "region_id", "captions", "region_id"),)
RULES = {
    **captions.RULES,
    "at_most_ten_hard_negatives": between("num_hard_negatives", 0, MOST_NEGATIVES),
    "hard_negatives_length": between("hard_negatives_longest", highest=SHORT.most),
    "hard_negatives_not_empty": between("hard_negatives_shortest", SHORT.fewest),
    "hard_negatives_differ": holds("hard_negatives_differ"),
    "hard_negatives_without_markup": holds("hard_negatives_have_markup", is_true=False),
}
PARSED, PARSED_FROM, parse = captions.PARSED, captions.PARSED_FROM, captions.parse


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: the captions' columns, and the wrong captions of each row."""
    texts = [list(found or ()) for found in chunk["hard_negatives"].to_pylist()]
    right = chunk["short_caption"].to_pylist()
    num_words = [[len((text or "").split()) for text in found] for found in texts]
    return {
        **captions.prepare(chunk),
        "num_hard_negatives": np.array([len(found) for found in texts], dtype=np.int64),
        "hard_negatives_longest": np.array(
            [max(words, default=SHORT.fewest) for words in num_words], dtype=np.int64
        ),
        "hard_negatives_shortest": np.array(
            [min(words, default=SHORT.fewest) for words in num_words], dtype=np.int64
        ),
        "hard_negatives_differ": np.array(
            [_all_differ([caption, *found]) for caption, found in zip(right, texts, strict=True)],
            dtype=bool,
        ),
        "hard_negatives_have_markup": np.array(
            [any(_MARKUP.search(text or "") for text in found) for found in texts], dtype=bool
        ),
    }


def _all_differ(texts: list[str | None]) -> bool:
    return len({" ".join((text or "").lower().split()) for text in texts}) == len(texts)
