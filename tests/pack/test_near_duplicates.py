import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.pack import near_duplicates
from components.pack.near_duplicates import near_duplicate_clusters


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


@pytest.mark.parametrize("max_cells", [1, 7, 10_000])
def test_comparing_in_small_blocks_changes_nothing(monkeypatch, max_cells):
    hashes = np.random.default_rng(0).integers(0, 16, 40, dtype=np.uint64)
    expected = near_duplicate_clusters(hashes, 1)
    monkeypatch.setattr(near_duplicates, "MAX_CELLS", max_cells)
    assert near_duplicate_clusters(hashes, 1).tolist() == expected.tolist()
