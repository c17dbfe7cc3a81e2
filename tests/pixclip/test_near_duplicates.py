import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixclip import near_duplicates
from pixclip.near_duplicates import (
    band_masks,
    has_near_duplicate_elsewhere,
    near_duplicate_clusters,
    pairs_within,
)

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
        patch.setattr(near_duplicates, "num_kept_bands", lambda num_hashes: kept)
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


def clusters_by_brute_force(hashes: list[int], max_distance_bits: int) -> list[int]:
    label, before = list(range(len(hashes))), []
    while label != before:
        before = label.copy()
        for i, left in enumerate(hashes):
            for j, right in enumerate(hashes):
                if (left ^ right).bit_count() <= max_distance_bits:
                    label[i] = label[j] = min(label[i], label[j])
    return label


@settings(deadline=None)
@given(
    seeds=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3),
    flips=st.lists(st.lists(st.integers(0, 63), max_size=6), min_size=1, max_size=5),
    max_distance_bits=st.integers(0, 8),
)
def test_banding_finds_the_same_clusters_as_comparing_all_pairs(seeds, flips, max_distance_bits):
    hashes = [seed ^ sum(1 << bit for bit in set(flip)) for seed in seeds for flip in flips]
    found = near_duplicate_clusters(np.array(hashes, dtype=np.uint64), max_distance_bits)
    assert found.tolist() == clusters_by_brute_force(hashes, max_distance_bits)


def test_a_chain_of_look_alikes_is_one_cluster():
    hashes = np.array([0b0, 0b11, 0b1111, 2**63 - 1], dtype=np.uint64)
    assert near_duplicate_clusters(hashes, 2).tolist() == [0, 0, 0, 3]


@pytest.mark.parametrize("max_distance_bits", range(1, 9))
def test_differences_spread_over_all_bits_are_found_up_to_the_distance(max_distance_bits):
    for num_bits in (max_distance_bits, max_distance_bits + 1):
        other = sum(1 << (index * 64 // num_bits) for index in range(num_bits))
        found = near_duplicate_clusters(np.array([0, other], dtype=np.uint64), max_distance_bits)
        assert (found[1] == 0) == (num_bits <= max_distance_bits)


def test_no_image_gives_no_cluster():
    assert near_duplicate_clusters(np.array([], dtype=np.uint64), 4).tolist() == []


HASHES = st.lists(
    st.tuples(st.integers(0, 3), st.sets(st.integers(0, 63), max_size=8)), min_size=1, max_size=24
)


@given(items=HASHES, distance=st.integers(0, 8))
@settings(max_examples=100, deadline=None)
def test_look_alikes_of_other_labels_are_those_that_comparing_all_pairs_finds(
    items: list[tuple[int, set[int]]], distance: int
) -> None:
    hashes = np.array([sum(1 << bit for bit in bits) for _, bits in items], dtype=np.uint64)
    labels = np.array([label for label, _ in items])
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= distance
    expected = (near & (labels[:, None] != labels[None])).any(axis=1)
    assert has_near_duplicate_elsewhere(hashes, labels, distance).tolist() == expected.tolist()
