import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixclip import near_duplicates
from pixclip.near_duplicates import (
    band_masks,
    first_of_near_duplicates,
    has_near_duplicate_elsewhere,
    near_duplicate_clusters,
    near_pairs,
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


# Sizes that send a few hashes along every way that millions can go.
SIZES = st.fixed_dictionaries(
    {
        "FEW_COMPARISONS": st.sampled_from([0, 20, 1 << 18]),
        "BLOCK_COMPARISONS": st.sampled_from([1, 1 << 18]),
        "FEWEST_ROWS": st.sampled_from([1, 8]),
        "SHIFTED_SIZE": st.sampled_from([1, 3, 128]),
        "MAX_KEPT_BANDS": st.integers(1, 3),
    }
)


def with_sizes(sizes, ask, *question):
    """The answer to a question when the bounds of time and memory are these."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in sizes.items():
            patch.setattr(near_duplicates, name, size)
        return ask(*question)


def sorted_pairs(hashes, max_distance):
    return {
        (min(pair), max(pair))
        for block in near_pairs(hashes, max_distance)
        for pair in zip(*(positions.tolist() for positions in block), strict=True)
    }


@settings(max_examples=200, deadline=None)
@given(related_hashes(), st.integers(1, 8), SIZES)
def test_exactly_the_pairs_within_the_distance_are_found(hashes, max_distance, sizes):
    found = with_sizes(sizes, sorted_pairs, hashes, max_distance)
    assert sorted(found) == by_brute_force(hashes, max_distance)


@given(
    st.lists(BITS, unique=True, min_size=9),
    st.lists(st.integers(0, 63), max_size=8),
    st.integers(1, 3),
)
def test_some_table_compares_only_bits_in_which_near_hashes_agree(bits, differing, kept):
    """The pigeonhole argument itself, for every way in which up to eight bits can differ."""
    difference = np.uint64(sum(1 << bit for bit in {bits[at % len(bits)] for at in differing}))
    masks = band_masks(bits, 8, kept)
    assert not masks or any(not difference & mask for mask in masks)
    assert bool(masks) == (len(bits) >= 8 + kept)


def test_two_hundred_thousand_hashes_take_seconds():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 200_000, dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, (4, 1000), dtype=np.uint64)
    hashes[-1000:] = hashes[:1000] ^ np.bitwise_xor.reduce(flips)
    assert {(number, 199_000 + number) for number in range(1000)} <= sorted_pairs(hashes, 4)


def test_hashes_that_share_half_their_bits_are_cut_by_the_other_half():
    """Else each would be compared with each: 50,000 of them make over a billion pairs."""
    hashes = np.unique(np.random.default_rng(0).integers(0, 2**32, 50_000, dtype=np.uint64))
    compared = 0

    def is_wanted(positions, starts):
        nonlocal compared
        sizes = np.diff(starts, append=len(positions))
        compared += int((sizes * sizes).sum()) if sizes.max() < len(hashes) else 0
        return np.ones(len(positions), dtype=bool)

    list(near_pairs(hashes, 4, is_wanted))
    assert compared < 50_000**2 / 20


def test_a_crowd_of_look_alikes_is_settled_without_looking_at_every_pair():
    every_value = np.arange(1 << 14, dtype=np.uint64)  # each has 1470 others within four bits
    pairs = 0
    forest = near_duplicates._Forest(len(every_value))
    for left, right in near_pairs(every_value, 4, forest.are_apart):
        forest.join(left, right)
        pairs += len(left)
    assert len(np.unique(forest.roots(np.arange(len(every_value))))) == 1
    assert pairs < len(every_value) * 1470 / 10


def test_no_hashes_make_no_pairs():
    assert not sorted_pairs(np.empty(0, dtype=np.uint64), 4)


def first_come_by_brute_force(hashes, max_distance):
    kept, stands_for = [], []
    for position, value in enumerate(map(int, hashes)):
        near = [other for other in kept if (int(hashes[other]) ^ value).bit_count() <= max_distance]
        stands_for.append(near[0] if near else position)
        kept += [] if near else [position]
    return stands_for


@settings(max_examples=200, deadline=None)
@given(related_hashes(), st.integers(1, 8), SIZES, st.sampled_from([0, 10, 1_000_000]))
def test_the_first_of_look_alikes_stands_for_those_after_it(hashes, max_distance, sizes, few_pairs):
    sizes = {**sizes, "FEW_PAIRS": few_pairs}
    found = with_sizes(sizes, first_of_near_duplicates, hashes, max_distance)
    assert found.tolist() == first_come_by_brute_force(hashes, max_distance)


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
    sizes=SIZES,
)
def test_banding_finds_the_same_clusters_as_comparing_all_pairs(
    seeds, flips, max_distance_bits, sizes
):
    hashes = [seed ^ sum(1 << bit for bit in set(flip)) for seed in seeds for flip in flips]
    values = np.array(hashes, dtype=np.uint64)
    found = with_sizes(sizes, near_duplicate_clusters, values, max_distance_bits)
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


@given(items=HASHES, distance=st.integers(0, 8), sizes=SIZES)
@settings(max_examples=100, deadline=None)
def test_look_alikes_of_other_labels_are_those_that_comparing_all_pairs_finds(
    items: list[tuple[int, set[int]]], distance: int, sizes: dict[str, int]
) -> None:
    hashes = np.array([sum(1 << bit for bit in bits) for _, bits in items], dtype=np.uint64)
    labels = np.array([label for label, _ in items])
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= distance
    expected = (near & (labels[:, None] != labels[None])).any(axis=1)
    found = with_sizes(sizes, has_near_duplicate_elsewhere, hashes, labels, distance)
    assert found.tolist() == expected.tolist()
