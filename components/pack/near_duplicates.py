"""Clusters of images that look alike, from their 64-bit perceptual hashes."""

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
HASH_BITS = 64
MAX_CELLS = 4_000_000  # of a comparison matrix held at once


def near_duplicate_clusters(hashes: Hashes, max_distance_bits: int) -> Indices:
    """For every image the smallest index of its cluster.

    Two images share a cluster if a chain of images joins them in which neighbours differ in at
    most `max_distance_bits` bits.
    """
    distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    parent = np.arange(len(distinct))
    for left, right in _near_pairs(distinct, max_distance_bits):
        _join(parent, left, right)
    roots = np.array([_root(parent, index) for index in range(len(distinct))], dtype=np.int64)
    smallest = np.full(len(distinct), len(hashes), dtype=np.int64)
    np.minimum.at(smallest, roots, first)
    return np.asarray(smallest[roots][inverse.reshape(-1)], dtype=np.int64)


def _near_pairs(hashes: Hashes, max_distance_bits: int) -> Iterator[tuple[int, int]]:
    """Index pairs of hashes within the distance.

    Hashes that differ in at most d bits agree in one of d + 1 bands, so only those are compared.
    """
    edges = np.linspace(0, HASH_BITS, max_distance_bits + 2).astype(int)
    for low, high in itertools.pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order])) + 1
        for members in np.split(order, starts):
            if len(members) > 1:
                yield from _pairs_among(hashes, members, max_distance_bits)


def _pairs_among(
    hashes: Hashes, members: Indices, max_distance_bits: int
) -> Iterator[tuple[int, int]]:
    num_rows = max(1, MAX_CELLS // len(members))
    for start in range(0, len(members), num_rows):
        rows = members[start : start + num_rows]
        distance = np.bitwise_count(hashes[rows][:, None] ^ hashes[members][None, :])
        for row, column in np.argwhere(distance <= max_distance_bits):
            if rows[row] < members[column]:
                yield int(rows[row]), int(members[column])


def _root(parent: Indices, index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = int(parent[index])
    return index


def _join(parent: Indices, left: int, right: int) -> None:
    left, right = _root(parent, left), _root(parent, right)
    parent[max(left, right)] = min(left, right)
