"""Images that look alike: 64-bit perceptual hashes within a Hamming distance, in numpy.

Multi-index hashing: the bits are cut into bands. Two hashes that differ in at most d bits agree
in all but d bands, so with `d + k` bands there are k bands in which they agree entirely. For
every choice of k bands, hashes with equal bits there are compared: no pair can be missed.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

NUM_BITS = 64
Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Pairs = npt.NDArray[np.int64]  # [P, 2], first < second


def pairs_within(hashes: Hashes, max_distance: int) -> Pairs:
    """All pairs of positions whose hashes differ in at most `max_distance` bits, sorted.

    The hashes should be distinct: n equal ones would make n² pairs.
    """
    found = [
        pairs
        for mask in band_masks(max_distance, num_kept_bands(len(hashes)))
        for pairs in _pairs_in_buckets(hashes, hashes & mask, max_distance)
    ]
    if not found:
        return np.empty((0, 2), dtype=np.int64)
    return np.unique(np.concatenate(found), axis=0)


def near_duplicate_clusters(hashes: Hashes, max_distance: int) -> Indices:
    """For every hash the smallest position of its cluster.

    Two hashes share a cluster if a chain of hashes joins them in which neighbours differ in at
    most `max_distance` bits.
    """
    distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    parent = np.arange(len(distinct))
    for left, right in pairs_within(distinct, max_distance).tolist():
        left, right = _root(parent, left), _root(parent, right)
        parent[max(left, right)] = min(left, right)
    roots = np.array([_root(parent, index) for index in range(len(distinct))], dtype=np.int64)
    smallest = np.full(len(distinct), len(hashes), dtype=np.int64)
    np.minimum.at(smallest, roots, first)
    return smallest[roots][inverse.reshape(-1)]


def has_near_duplicate_elsewhere(
    hashes: Hashes, labels: Indices, max_distance: int
) -> npt.NDArray[np.bool_]:
    """Whether each hash has one of another label within `max_distance` bits."""
    distinct, inverse = np.unique(hashes, return_inverse=True)
    low = np.full(len(distinct), np.iinfo(np.int64).max)
    high = np.full(len(distinct), np.iinfo(np.int64).min)
    np.minimum.at(low, inverse, labels)
    np.maximum.at(high, inverse, labels)
    lowest, highest = low.copy(), high.copy()
    pairs = pairs_within(distinct, max_distance)
    for here, there in (pairs.T, pairs.T[::-1]):
        np.minimum.at(lowest, here, low[there])
        np.maximum.at(highest, here, high[there])
    return np.asarray((lowest[inverse] != labels) | (highest[inverse] != labels))


def _root(parent: Indices, index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = int(parent[index])
    return index


def num_kept_bands(num_hashes: int) -> int:
    """Bands that must agree: more give smaller buckets, and more tables to sort."""
    if num_hashes < 10_000:
        return 1
    return 2 if num_hashes < 1_000_000 else 3


def band_masks(max_distance: int, kept: int) -> list[np.uint64]:
    """The bits to compare in each table."""
    num_bands = max_distance + kept
    edges = [NUM_BITS * band // num_bands for band in range(num_bands + 1)]
    bands = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(bands, kept)]


def _pairs_in_buckets(hashes: Hashes, keys: Hashes, max_distance: int) -> Iterator[Pairs]:
    """Pairs among hashes of equal key: neighbours at lag 1, 2, … of the sorted keys."""
    order = np.argsort(keys, kind="stable")
    sorted_keys, sorted_hashes = keys[order], hashes[order]
    starts = np.arange(len(order))
    for lag in range(1, len(order)):
        starts = starts[starts + lag < len(order)]
        starts = starts[sorted_keys[starts] == sorted_keys[starts + lag]]
        if not len(starts):
            return
        distances = np.bitwise_count(sorted_hashes[starts] ^ sorted_hashes[starts + lag])
        near = starts[distances <= max_distance]
        if len(near):
            yield np.sort(np.stack([order[near], order[near + lag]], axis=1), axis=1)
