"""Images that look alike in different splits, found by their 64-bit perceptual hashes."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from data_contracts.tables import Hashes

Places = npt.NDArray[np.intp]
HASH_BITS = 64
MAX_PAIRS = 2_000_000  # compared at a time


def near_in_other_label(
    hashes: Hashes, labels: npt.NDArray[np.int64], max_distance_bits: int
) -> npt.NDArray[np.bool_]:
    """Whether each hash has one of another label within `max_distance_bits` bits."""
    is_near = np.zeros(len(hashes), dtype=bool)
    names, counts = np.unique(labels, return_counts=True)
    left = np.ones(len(hashes), dtype=bool)
    for label in names[np.argsort(counts)][:-1]:  # the small splits ask the large ones
        asking = np.flatnonzero(labels == label)
        left[asking] = False
        asked = np.flatnonzero(left)
        for first, second in _near_pairs(hashes[asking], hashes[asked], max_distance_bits):
            is_near[asking[first]] = True
            is_near[asked[second]] = True
    return is_near


def _near_pairs(
    asking: Hashes, asked: Hashes, max_distance_bits: int
) -> Iterator[tuple[Places, Places]]:
    """Places of hashes near each other.

    Hashes that differ in at most d bits agree in one of d + 1 bands, so only those are compared.
    """
    edges = np.linspace(0, HASH_BITS, max_distance_bits + 2).astype(int)
    for low, high in pairwise(edges):
        mask = np.uint64((1 << int(high - low)) - 1)
        bands, queries = (hashes >> np.uint64(low) & mask for hashes in (asked, asking))
        order = np.argsort(bands, kind="stable")
        starts = np.searchsorted(bands[order], queries, side="left")
        counts = np.searchsorted(bands[order], queries, side="right") - starts
        for rows in _batches(counts):
            first = np.repeat(rows, counts[rows])
            skipped = np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
            second = order[np.repeat(starts[rows], counts[rows]) + np.arange(len(first)) - skipped]
            near = np.bitwise_count(asking[first] ^ asked[second]) <= max_distance_bits
            yield first[near], second[near]


def _batches(counts: Places) -> Iterator[Places]:
    """Rows with candidates, so many at a time that their candidates fit `MAX_PAIRS`."""
    rows = np.flatnonzero(counts)
    batch = np.cumsum(counts[rows]) // MAX_PAIRS
    yield from np.split(rows, np.flatnonzero(np.diff(batch)) + 1)
