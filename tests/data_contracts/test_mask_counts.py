"""The reader of many mask counts against the reader of one and against pycocotools."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.engine import mask_counts
from data_contracts.engine.mask_counts import read_counts
from pixclip.masks import MAX_NUMBER_CHARS, encode_mask, rle_num_pixels

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
        all(ord(char) - 48 & 0x20 for char in text[start : start + MAX_NUMBER_CHARS])
        for start in range(len(text) - MAX_NUMBER_CHARS)
    )
    return num_pixels if text and not too_long else -1


def test_missing_counts_are_damaged_and_blocks_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_counts, "BLOCK_BYTES", 3)
    counts = encode_mask(np.ones((3, 5), dtype=bool)).counts
    texts = [counts, None, counts, "", "`", counts]
    assert read_counts(pa.array(texts)).num_pixels.tolist() == [15, -1, 15, -1, -1, 15]
    assert read_counts(pa.array([], type=pa.string())).num_pixels.tolist() == []


def facts_of_one(text: str) -> tuple[int, int]:
    """Pixels and area, number by number; -1 for both where the text is damaged."""
    runs: list[int] = []
    value = place = 0
    for code in (ord(char) - 48 for char in text):
        value |= (code & 31) << 5 * place
        place += 1
        if not 0 <= code < 64 or place > MAX_NUMBER_CHARS:
            return -1, -1
        if code < 32:
            number = value - ((code & 16) << 5 * place - 4)
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            value = place = 0
    if not text or place or min(runs) < 0:
        return -1, -1
    return sum(runs), sum(runs[1::2])


@st.composite
def edited_counts(draw: st.DrawFn) -> str:
    """Counts of a real mask, of which characters may be cut off, replaced, put in or taken out."""
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    text = encode_mask(random.random((height, width)) < random.random()).counts
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(text)))
        put_in = draw(st.text(st.characters(min_codepoint=44, max_codepoint=115), max_size=8))
        text = text[:place] + put_in + text[place + draw(st.integers(0, 2)) :]
    return text


def characters(number: int) -> str:
    """A number as COCO writes it."""
    text = ""
    while not -16 <= number < 16:
        text, number = text + chr(48 + (number & 31 | 32)), number >> 5
    return text + chr(48 + (number & 31))


NUMBERS = st.one_of(st.integers(-40, 40), st.integers(-(2**29), 2**29 - 1))


@st.composite
def damaged_counts(draw: st.DrawFn) -> str:
    """Counts with one kind of damage, or with numbers of any length and sign."""
    text = encode_mask(np.eye(draw(st.integers(1, 200)), dtype=bool)).counts
    place = draw(st.integers(0, len(text)))
    return draw(
        st.sampled_from(
            [
                text[:place],
                text[:place] + chr(draw(st.sampled_from([1, 10, 32, 47, 112, 126, 127, 233]))),
                text[:place] + "`" * draw(st.integers(5, 9)) + text[place:],
                text[:place] + characters(-draw(st.integers(1, 2**29))) + text[place:],
                text + characters(draw(st.integers(0, 2**29 - 1))),
                "".join(map(characters, draw(st.lists(NUMBERS, max_size=12)))),
            ]
        )
    )


@given(texts=st.lists(damaged_counts(), min_size=1, max_size=6))
@settings(max_examples=300, deadline=None)
def test_cut_strange_endless_and_negative_counts_are_told_as_one_by_one(texts: list[str]) -> None:
    facts = read_counts(pa.array(texts))
    found = list(zip(facts.num_pixels.tolist(), facts.area_px.tolist(), strict=True))
    assert found == [facts_of_one(text) for text in texts]


@given(
    texts=st.lists(st.one_of(st.none(), edited_counts()), max_size=6),
    block_bytes=st.sampled_from([1, 60, 200_000]),
)
@settings(max_examples=150, deadline=None)
def test_many_rows_give_what_each_gives_alone_whatever_is_wrong_with_some(
    texts: list[str | None], block_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_counts, "BLOCK_BYTES", block_bytes)
        facts = read_counts(pa.array(texts, pa.string()))
    found = list(zip(facts.num_pixels.tolist(), facts.area_px.tolist(), strict=True))
    assert found == [facts_of_one(text or "") for text in texts]


def test_slices_and_chunks_of_a_column_are_read_as_the_whole() -> None:
    texts = [encode_mask(np.ones((side, 3), dtype=bool)).counts for side in range(1, 9)]
    column = pa.array(texts)
    chunked = pa.chunked_array([column.slice(2, 3), column.slice(5, 1)])
    assert read_counts(chunked).num_pixels.tolist() == [9, 12, 15, 18]
    assert read_counts(column.slice(6)).area_px.tolist() == [21, 24]
