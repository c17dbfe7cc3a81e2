"""`captions`: the region rows with what was said of them, and who said it."""

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from data_contracts import regions
from data_contracts.columns import has_markup, languages, num_words
from data_contracts.rules import Join, named_suite
from data_contracts.tables import Columns

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

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
LONG_WORDS, SHORT_WORDS, PART_WORDS = (12, 300), (1, 40), (2, 200)


def prepare(chunk: pa.Table) -> Columns:
    """What the rules look at: the region's columns, and the captions' words and language."""
    return {**regions.prepare(chunk), **caption_columns(chunk)}


def caption_columns(chunk: pa.Table) -> Columns:
    """Words, markup and language of the captions."""
    words = {f"{name}_words": num_words(chunk[name]) for name in TEXTS}
    return {
        **words,
        "words_more_than_short": words["long_caption_words"] - words["short_caption_words"],
        "captions_have_markup": has_markup(chunk, TEXTS),
        "long_caption_language": languages(chunk["long_caption"]),
    }


def caption_rules() -> dict[str, Any]:
    """Captions have a sensible length, are English and hold nothing but text."""
    from great_expectations import expectations as gxe

    def words_between(name: str, limits: tuple[int, int]) -> Any:
        return gxe.ExpectColumnValuesToBeBetween(
            column=f"{name}_words", min_value=limits[0], max_value=limits[1]
        )

    return {
        "long_caption_length": words_between("long_caption", LONG_WORDS),
        "short_caption_length": words_between("short_caption", SHORT_WORDS),
        "object_caption_length": words_between("object_caption", PART_WORDS),
        "context_caption_length": words_between("context_caption", PART_WORDS),
        "long_caption_longer_than_short": gxe.ExpectColumnValuesToBeBetween(
            column="words_more_than_short", min_value=1
        ),
        "captions_without_markup": gxe.ExpectColumnValuesToBeInSet(
            column="captions_have_markup", value_set=[False]
        ),
        # One text in twenty may be read as another language: names, lists of colours.
        "long_caption_in_english": gxe.ExpectColumnValuesToBeInSet(
            column="long_caption_language", value_set=["en"], mostly=0.95
        ),
    }


def rules() -> dict[str, Any]:
    """Every region was accepted by the verifier, and what was said of it is usable text."""
    from great_expectations import expectations as gxe

    return {
        **regions.rules(),
        **caption_rules(),
        "verdict_accepted": gxe.ExpectColumnValuesToBeInSet(
            column="verdict", value_set=["accepted"]
        ),
        "provenance_is_an_object": gxe.ExpectColumnValuesToMatchRegex(
            column="provenance", regex=r"^\{.+\}$"
        ),
        "prompt_tokens_not_negative": gxe.ExpectColumnValuesToBeBetween(
            column="prompt_tokens", min_value=0
        ),
        "completion_tokens_not_negative": gxe.ExpectColumnValuesToBeBetween(
            column="completion_tokens", min_value=0
        ),
        "cost_not_negative": gxe.ExpectColumnValuesToBeBetween(column="cost_usd", min_value=0),
    }


def suite() -> "ExpectationSuite":
    """The contract's rules."""
    return named_suite("captions", rules())
