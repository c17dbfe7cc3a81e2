"""Decide which images stay: benchmark images before others, then the first in order."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixclip.near_duplicates import Hashes, pairs_within

SHA256_BYTES = 32
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageIndex:
    """Every usable image of all groups, in order, as columns: 41 bytes an image."""

    sha256: npt.NDArray[np.void]  # [N] of 32 bytes
    phash: Hashes  # [N]
    is_benchmark: npt.NDArray[np.bool_]  # [N]

    def __len__(self) -> int:
        return len(self.phash)


def kept_images(images: ImageIndex, max_phash_distance: int) -> Positions:
    """For every image the position of the image that stands for it; itself, if it stays.

    Whatever is dropped lies within the distance of the image that stands for it, and no two
    images that stay lie within it.
    """
    # A benchmark image stays even if its twin came first: leakage must not shrink a benchmark.
    rank = np.argsort(~images.is_benchmark, kind="stable")
    if max_phash_distance < 0:
        return _first_of_equals(images.sha256, rank)
    firsts = _first_of_equals(images.phash, rank)
    if max_phash_distance == 0:
        return firsts
    distinct = rank[firsts[rank] == rank]  # in the order of preference
    stands_for = _greedy(images.phash[distinct], max_phash_distance)
    replacement = np.arange(len(images))
    replacement[distinct] = distinct[stands_for]
    return replacement[firsts]


def _first_of_equals(values: npt.NDArray[np.generic], rank: Positions) -> Positions:
    """For every value the position of its most preferred equal."""
    _, first, inverse = np.unique(values[rank], return_index=True, return_inverse=True)
    firsts = np.empty(len(values), dtype=np.int64)
    firsts[rank] = rank[first[inverse]]
    return firsts


def _greedy(hashes: Hashes, max_distance: int) -> Positions:
    """Go through distinct hashes in order; one that stays takes out its later neighbours."""
    stands_for = np.arange(len(hashes))
    for first, second in pairs_within(hashes, max_distance).tolist():
        if stands_for[first] == first and stands_for[second] == second:
            stands_for[second] = first
    return stands_for
