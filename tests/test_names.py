"""Names that several parts share are defined once: splits, files, metrics, lengths of captions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from components.data.describe.settings import DescribeSettings
from data_contracts import captions as lengths
from pixclip.data import layout
from pixclip.evaluation.metrics import METRICS
from pixclip.evaluation.protocol import SCENE_ACCURACY

ROOT = Path(__file__).parents[1]
LAYOUT, PROTOCOL = "model/pixclip/data/layout.py", "model/pixclip/evaluation/protocol.py"
# Text -> the file that defines it.
DEFINED = {
    layout.MANIFEST_NAME: LAYOUT,
    layout.RECEIPT_NAME: LAYOUT,
    layout.CARD_NAME: LAYOUT,
    layout.SHARDS: LAYOUT,
    layout.SEEN_OBJECTS: LAYOUT,
    layout.HELD_OUT_OBJECTS: LAYOUT,
    **dict.fromkeys(METRICS, PROTOCOL),
    **{metric.column: PROTOCOL for metric in METRICS.values() if metric.top},
    SCENE_ACCURACY: PROTOCOL,
}


def texts() -> Iterator[tuple[str, str]]:
    """File and value of every text in the product's code."""
    for folder in ("components", "data_contracts", "model/pixclip", "dags"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield str(path.relative_to(ROOT)), node.value


def test_a_shared_name_is_written_in_one_file() -> None:
    found = {(file, text) for file, text in texts() if text in DEFINED}
    assert not {(file, text) for file, text in found if DEFINED[text] != file}


def test_splits_are_listed_in_one_file() -> None:
    names = ast.dump(ast.parse(repr(layout.SPLITS), mode="eval").body)
    for folder in ("components", "model/pixclip"):
        for path in (ROOT / folder).rglob("*.py"):
            if str(path.relative_to(ROOT)) != LAYOUT:
                lists = (ast.dump(node) for node in ast.walk(ast.parse(path.read_text())))
                assert names not in lists, path


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        (lengths.ASKED_LONG, lengths.LONG),
        (lengths.ASKED_SHORT, lengths.SHORT),
        (lengths.ASKED_PART, lengths.PART),
        (lengths.RULED_LONG, lengths.ASKED_LONG),
    ],
)
def test_what_a_describer_writes_by_default_may_stand_in_a_data_set(
    inner: lengths.Words, outer: lengths.Words
) -> None:
    assert outer.fewest <= inner.fewest < inner.most <= outer.most


@pytest.mark.parametrize(("kind", "held"), [("long", lengths.LONG), ("short", lengths.SHORT)])
@pytest.mark.parametrize("side", ["min", "max"])
def test_the_describer_can_be_asked_for_what_a_data_set_may_hold_and_for_nothing_else(
    side: str, kind: str, held: lengths.Words
) -> None:
    widest = {f"min_{kind}_words": held.fewest, f"max_{kind}_words": held.most}
    name = f"{side}_{kind}_words"
    for num_words in held:
        DescribeSettings.model_validate({**widest, name: num_words})
    for num_words in (held.fewest - 1, held.most + 1):
        with pytest.raises(ValidationError, match=name):
            DescribeSettings.model_validate({**widest, name: num_words})


def test_the_describer_asks_for_the_lengths_of_the_paper_by_default() -> None:
    settings = DescribeSettings()
    assert (settings.min_long_words, settings.max_long_words) == (30, 120)
    assert (settings.min_short_words, settings.max_short_words) == (2, 20)
