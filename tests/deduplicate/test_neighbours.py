import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.deduplicate import neighbours
from components.deduplicate.neighbours import band_masks, pairs_within

BITS = st.integers(0, 63)


@st.composite
def related_hashes(draw):
    """Distinct hashes of which many differ in a few bits only."""
    hashes = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8))
    for _ in range(draw(st.integers(0, 30))):
        value = hashes[draw(st.integers(0, len(hashes) - 1))]
        for bit in draw(st.lists(BITS, max_size=7)):
            value ^= 1 << bit
        hashes.append(value)
    return np.array(list(dict.fromkeys(hashes)), dtype=np.uint64)


def by_brute_force(hashes, max_distance):
    values = [int(value) for value in hashes]
    return [
        (first, second)
        for first in range(len(values))
        for second in range(first + 1, len(values))
        if (values[first] ^ values[second]).bit_count() <= max_distance
    ]


@settings(max_examples=200, deadline=None)
@given(related_hashes(), st.integers(1, 8), st.integers(1, 3))
def test_exactly_the_pairs_within_the_distance_are_found(hashes, max_distance, kept):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "num_kept_bands", lambda num_hashes: kept)
        found = [tuple(pair) for pair in pairs_within(hashes, max_distance).tolist()]
    assert found == by_brute_force(hashes, max_distance)


@given(st.sets(BITS, max_size=8), st.integers(1, 3))
def test_some_table_compares_only_bits_in_which_near_hashes_agree(differing, kept):
    """The pigeonhole argument itself, for every way in which up to eight bits can differ."""
    difference = np.uint64(sum(1 << bit for bit in differing))
    assert any(not difference & mask for mask in band_masks(8, kept))


def test_two_hundred_thousand_hashes_take_seconds():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 200_000, dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, (4, 1000), dtype=np.uint64)
    hashes[-1000:] = hashes[:1000] ^ np.bitwise_xor.reduce(flips)
    found = {tuple(pair) for pair in pairs_within(hashes, 4).tolist()}
    assert {(number, 199_000 + number) for number in range(1000)} <= found


def test_no_hashes_make_no_pairs():
    assert pairs_within(np.empty(0, dtype=np.uint64), 4).shape == (0, 2)
