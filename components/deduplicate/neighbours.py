"""Find every pair of 64-bit hashes within a Hamming distance, in numpy.

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
