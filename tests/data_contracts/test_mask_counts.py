"""The reader of many mask counts against the reader of one and against pycocotools."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts import mask_counts
from data_contracts.mask_counts import read_counts
from pixclip.masks import encode_mask, rle_num_pixels

CHARACTERS = st.characters(min_codepoint=40, max_codepoint=120)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=8),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_counts_of_real_masks_give_their_pixels_and_area(
    sizes: list[tuple[int, int]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    masks = [random.random(size) < random.random() for size in sizes]
    facts = read_counts(pa.array([encode_mask(mask).counts for mask in masks]))
    assert facts.num_pixels.tolist() == [mask.size for mask in masks]
    assert facts.area_px.tolist() == [mask.sum() for mask in masks]


@given(texts=st.lists(st.text(CHARACTERS, max_size=12), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_damaged_counts_are_told_from_whole_ones_as_the_reader_of_one_does(
    texts: list[str],
) -> None:
    found = read_counts(pa.array(texts)).num_pixels.tolist()
    for text, num_pixels in zip(texts, found, strict=True):
        assert num_pixels == expected_pixels(text)


def expected_pixels(text: str) -> int:
    """What one reader says; empty counts and absurd numbers count as damaged."""
    try:
        num_pixels = rle_num_pixels(text)
    except ValueError:
        return -1
    too_long = any(
        all(ord(char) - 48 & 0x20 for char in text[start : start + mask_counts.MAX_CHARS])
        for start in range(len(text) - mask_counts.MAX_CHARS)
    )
    return num_pixels if text and not too_long else -1


def test_missing_counts_are_damaged_and_blocks_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_counts, "BLOCK_BYTES", 3)
    counts = encode_mask(np.ones((3, 5), dtype=bool)).counts
    texts = [counts, None, counts, "", "`", counts]
    assert read_counts(pa.array(texts)).num_pixels.tolist() == [15, -1, 15, -1, -1, 15]
    assert read_counts(pa.array([], type=pa.string())).num_pixels.tolist() == []
