"""`captions`: the region rows with what was said of them, and who said it.

How many words a caption may have stands here: `HELD_LONG`, `LONG` and their like.
"""

from typing import NamedTuple

import pyarrow as pa

from data_contracts import regions
from data_contracts.engine.columns import has_markup, languages, num_words
from data_contracts.engine.contract import Join
from data_contracts.engine.rules import between, holds, is_in, matches
from data_contracts.engine.tables import Columns


class Words(NamedTuple):
    """The fewest and the most words of a caption."""

    fewest: int
    most: int


# What a data set may hold, published captions too, of which many are a few words; a part is the
# caption of the object or of its context.
HELD_LONG, HELD_SHORT, HELD_PART = Words(1, 300), Words(1, 60), Words(1, 200)
# What a describer may be set to write.
LONG, SHORT, PART = Words(12, 300), Words(1, 40), Words(2, 200)
# What a model is asked for.
ASKED_LONG, ASKED_SHORT, ASKED_PART = Words(30, 120), Words(2, 20), Words(3, 150)
# What the embedded rules aim at, as far as the settings allow it.
RULED_LONG, RULED_SHORT_MOST = Words(30, 60), 12

KEY = "region_id"
SCHEMA = pa.schema(
    [
        *regions.SCHEMA,
        pa.field("object_caption", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),  # "accepted"
        pa.field("verdict_reason", pa.string(), nullable=False),
        pa.field("context_caption", pa.string(), nullable=False),
        pa.field("long_caption", pa.string(), nullable=False),
        pa.field("short_caption", pa.string(), nullable=False),
        # JSON: stage -> {"describer", "model", "prompt", "prompt_version", "request_hash"}
        pa.field("provenance", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.int64(), nullable=False),
        pa.field("completion_tokens", pa.int64(), nullable=False),
        pa.field("cost_usd", pa.float64(), nullable=False),
    ]
)

BUDGET = 0.02
JOINS = (
    Join("region_among_regions", "region_id", "regions", "region_id"),
    Join("image_in_manifest", "image_sha256", "images", "sha256", where=("status", "ok")),
)
TEXTS = ["object_caption", "context_caption", "long_caption", "short_caption"]
CAPTION_RULES = {
    "long_caption_length": between("long_caption_words", *HELD_LONG),
    "short_caption_length": between("short_caption_words", *HELD_SHORT),
    "object_caption_length": between("object_caption_words", *HELD_PART),
    "context_caption_length": between("context_caption_words", *HELD_PART),
    "long_caption_not_shorter_than_short": between("words_more_than_short", 0),
    "captions_without_markup": holds("captions_have_markup", is_true=False),
    # One text in twenty may be read as another language: names, lists of colours.
    "long_caption_in_english": is_in("long_caption_language", "en", mostly=0.95),
}
RULES = {
    **regions.RULES,
    **CAPTION_RULES,
    "verdict_accepted": is_in("verdict", "accepted"),
    "provenance_is_an_object": matches("provenance", r"^\{.+\}$"),
    "prompt_tokens_not_negative": between("prompt_tokens", 0),
    "completion_tokens_not_negative": between("completion_tokens", 0),
    "cost_not_negative": between("cost_usd", 0),
}
PARSED, PARSED_FROM, parse = regions.PARSED, regions.PARSED_FROM, regions.parse


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: the region's columns, and the captions' words and language."""
    return {**regions.prepare(chunk), **caption_columns(chunk)}


def caption_columns(chunk: pa.Table) -> Columns:
    """Words, markup and language of the captions; a few words are of no language for sure."""
    words = {f"{name}_words": num_words(chunk[name]) for name in TEXTS}
    return {
        **words,
        "words_more_than_short": words["long_caption_words"] - words["short_caption_words"],
        "captions_have_markup": has_markup(chunk, TEXTS),
        "long_caption_language": languages(
            chunk["long_caption"], words["long_caption_words"] >= LONG.fewest
        ),
    }
