"""Images that look alike: 64-bit perceptual hashes within a Hamming distance, in numpy.

Multi-index hashing (Norouzi et al., arXiv:1307.2982): the bits that vary are cut into bands. Two
hashes that differ in at most d bits agree in all but d bands, so with `d + k` bands there are k
bands in which they agree entirely. For every choice of k bands, hashes with equal bits there are
compared: no pair can be missed. A bucket that is still large is cut again by the bits that vary
inside it, so that hashes which share many bits cost no more than others.

Where hashes are so dense that no cut divides them (all images of a plain colour), most pairs are
never looked at: each question below says which hashes it still has to compare, and asks again as
pairs come in. No answer depends on the sizes below; they only bound time and memory.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

NUM_BITS = 64
MAX_KEPT_BANDS = 3
FEW_COMPARISONS = 1 << 18  # made at once rather than cut into buckets
BLOCK_COMPARISONS = 1 << 18  # in memory at a time, or those of some rows
FEWEST_ROWS = 8
SHIFTED_SIZE = 128  # of the largest buckets that are compared together, by shifting
SAMPLE_SIZE = 2048  # hashes that tell whether a cut divides the others
FEW_PAIRS = 1_000_000  # held at a time where pairs must be sorted, or two a hash
Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Pairs = tuple[Indices, Indices]
# Given the positions of hashes bucket by bucket, and where each bucket begins: which of them must
# still be compared with all others of their bucket. Asked again whenever pairs were delivered.
Wanted = Callable[[Indices, Indices], Bools]
Kind = TypeVar("Kind", bound=np.generic)
ONE_BUCKET = np.zeros(1, dtype=np.int64)


def near_duplicate_clusters(hashes: Hashes, max_distance: int) -> Indices:
    """For every hash the smallest position of its cluster.

    Two hashes share a cluster if a chain of hashes joins them in which neighbours differ in at
    most `max_distance` bits.
    """
    distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    forest = _Forest(len(distinct))
    for left, right in near_pairs(distinct, max_distance, forest.are_apart):
        forest.join(left, right)
    roots = forest.roots(np.arange(len(distinct)))
    smallest = np.full(len(distinct), len(hashes), dtype=np.int64)
    np.minimum.at(smallest, roots, first)
    return smallest[roots][inverse.reshape(-1)]


def has_near_duplicate_elsewhere(hashes: Hashes, labels: Indices, max_distance: int) -> Bools:
    """Whether each hash has one of another label within `max_distance` bits."""
    distinct, inverse = np.unique(hashes, return_inverse=True)
    low = np.full(len(distinct), np.iinfo(np.int64).max)
    high = np.full(len(distinct), np.iinfo(np.int64).min)
    np.minimum.at(low, inverse, labels)
    np.maximum.at(high, inverse, labels)
    is_found = low != high
    label = np.where(is_found, np.iinfo(np.int64).min, low)  # one for all that have several

    def are_unknown(positions: Indices, starts: Indices) -> Bools:
        inside = label[positions]
        is_mixed: Bools = np.minimum.reduceat(inside, starts) != np.maximum.reduceat(inside, starts)
        return np.asarray(_spread(is_mixed, starts, len(positions)) & ~is_found[positions])

    for left, right in near_pairs(distinct, max_distance, are_unknown):
        differs = label[left] != label[right]
        is_found[left[differs]] = is_found[right[differs]] = True
    return np.asarray(is_found[inverse.reshape(-1)])


def first_of_near_duplicates(hashes: Hashes, max_distance: int) -> Indices:
    """Go through distinct hashes in order; one that stays takes out its later neighbours.

    Gives for every hash the position of the first that stays within `max_distance` bits; its own,
    if it stays.
    """
    stands_for = np.arange(len(hashes))
    rest, num = stands_for.copy(), len(hashes)
    while len(rest):
        pairs, num = _pairs_of_head(hashes[rest], num, max_distance)
        head, rest = rest[:num], rest[num:]
        for part in np.array_split(pairs, len(pairs) // 4096 + 1):
            for first, second in head[part].tolist():
                if stands_for[first] == first and stands_for[second] == second:
                    stands_for[second] = first
        kept = head[stands_for[head] == head]
        stands_for[rest] = _first_near(hashes, kept, rest, max_distance)
        rest, num = rest[stands_for[rest] == rest], 2 * num
    return stands_for


def _pairs_of_head(
    hashes: Hashes, num: int, max_distance: int
) -> tuple[npt.NDArray[np.int64], int]:
    """The sorted pairs [P, 2] of up to `num` first hashes, fewer if those have too many."""
    while True:
        found, num_found = [np.empty(0, dtype=np.int64)], 0
        for left, right in near_pairs(hashes[:num], max_distance):
            found.append(np.minimum(left, right) * len(hashes) + np.maximum(left, right))
            num_found += len(left)
            if num_found > max(FEW_PAIRS, 2 * len(hashes)):
                break
        else:
            return np.stack(np.divmod(np.unique(np.concatenate(found)), len(hashes)), axis=1), num
        num = (min(num, len(hashes)) + 1) // 2


def _first_near(hashes: Hashes, kept: Indices, rest: Indices, max_distance: int) -> Indices:
    """For each of the rest the first near one of those kept, itself if none is near."""
    both = np.concatenate([kept, rest])
    first = np.full(len(both), len(kept))

    def are_kept(positions: Indices, starts: Indices) -> Bools:
        has_rest = np.maximum.reduceat(positions, starts) >= len(kept)
        return _spread(has_rest, starts, len(positions)) & (positions < len(kept))

    if len(rest):
        for left, right in near_pairs(hashes[both], max_distance, are_kept):
            np.minimum.at(first, np.maximum(left, right), np.minimum(left, right))
    first = first[len(kept) :]
    return np.where(first < len(kept), both[first], rest)


class _Forest:
    """Sets of positions that are joined pair by pair."""

    def __init__(self, num: int) -> None:
        self._parent = np.arange(num)
        self._size = np.ones(num, dtype=np.int64)  # of a root's set

    def roots(self, positions: Indices) -> Indices:
        """The representative of each position's set."""
        roots = self._parent[positions]
        while len(above := np.flatnonzero(self._parent[roots] != roots)):
            roots[above] = self._parent[roots[above]]
        self._parent[positions] = roots
        return roots

    def join(self, left: Indices, right: Indices) -> None:
        """Make one set of the sets of each pair."""
        joined = []
        while True:
            left, right = self.roots(left), self.roots(right)
            is_apart = left != right
            if not is_apart.any():
                break
            left, right = left[is_apart], right[is_apart]
            above, below = np.minimum(left, right), np.maximum(left, right)
            np.minimum.at(self._parent, below, above)
            joined.append(np.unique(below))
        if joined:
            below = np.concatenate(joined)
            np.add.at(self._size, self.roots(below), self._size[below])

    def are_apart(self, positions: Indices, starts: Indices) -> Bools:
        """Those outside the largest set that their bucket meets."""
        roots = self.roots(positions)
        sets = self._size[roots] * len(self._parent) + roots
        largest: Indices = _spread(np.maximum.reduceat(sets, starts), starts, len(positions))
        return np.asarray(largest != sets)


def _all(positions: Indices, starts: Indices) -> Bools:
    return np.ones(len(positions), dtype=bool)


def near_pairs(hashes: Hashes, max_distance: int, wanted: Wanted = _all) -> Iterator[Pairs]:
    """Pairs of positions whose hashes differ in at most `max_distance` bits, block by block.

    A pair of which `wanted` marks neither may be missing; others can come several times and in
    either order. The hashes should be distinct: n equal ones would make n² pairs.
    """
    yield from _compare(hashes, np.arange(len(hashes)), max_distance, wanted)


def _compare(
    hashes: Hashes, positions: Indices, max_distance: int, wanted: Wanted
) -> Iterator[Pairs]:
    """The pairs of one bucket: by a further cut into buckets, if that divides it."""
    if len(positions) < 2:
        return
    num_wanted = np.count_nonzero(wanted(positions, ONE_BUCKET))
    if not num_wanted:
        return
    masks: Sequence[np.uint64] = ()
    if num_wanted * len(positions) > FEW_COMPARISONS:
        masks = _dividing_masks(hashes[positions], max_distance)
    if not masks:
        yield from _compare_all(hashes[positions], positions, max_distance, wanted)
    for mask in masks:
        yield from _compare_in_buckets(hashes, positions, mask, max_distance, wanted)


def _dividing_masks(hashes: Hashes, max_distance: int) -> list[np.uint64]:
    """The bits to compare in each table; none if buckets would take longer than all with all."""
    varying = int(np.bitwise_or.reduce(hashes ^ hashes[0]))
    bits = [bit for bit in range(NUM_BITS) if varying >> bit & 1]
    masks = band_masks(bits, max_distance, num_kept_bands(len(hashes), len(bits), max_distance))
    sample = hashes[:: -(-len(hashes) // SAMPLE_SIZE)]
    share = 0.0
    for mask in masks:
        _, sizes = np.unique(sample & mask, return_counts=True)
        share += float((sizes * sizes).sum()) / len(sample) ** 2
    return masks if share < 0.5 else []


def num_kept_bands(num_hashes: int, num_bits: int, max_distance: int) -> int:
    """Bands that must agree: more give smaller buckets, and more tables to sort."""
    for kept in range(1, MAX_KEPT_BANDS):
        if num_hashes <= 16 * 2 ** (kept * num_bits / (max_distance + kept)):
            return kept
    return MAX_KEPT_BANDS


def band_masks(bits: Sequence[int], max_distance: int, kept: int) -> list[np.uint64]:
    """The bits to compare in each table, of some bits; none if they are fewer than the bands."""
    num_bands = max_distance + kept
    if len(bits) < num_bands:
        return []
    edges = [len(bits) * band // num_bands for band in range(num_bands + 1)]
    bands = [sum(1 << bit for bit in bits[low:high]) for low, high in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(bands, kept)]


def _compare_in_buckets(
    hashes: Hashes, positions: Indices, mask: np.uint64, max_distance: int, wanted: Wanted
) -> Iterator[Pairs]:
    """Pairs among hashes that are equal under the mask."""
    keys = hashes[positions] & mask
    order = np.argsort(keys)
    positions, keys = positions[order], keys[order]
    is_start = np.concatenate([[True], keys[1:] != keys[:-1]])
    del keys, order
    starts = np.flatnonzero(is_start)
    sizes = np.diff(starts, append=len(positions))
    is_small = (sizes > 1) & (sizes <= SHIFTED_SIZE)
    small = positions[np.repeat(is_small, sizes)]
    yield from _compare_shifted(hashes, small, sizes[is_small], max_distance, wanted)
    for bucket in np.flatnonzero(sizes > SHIFTED_SIZE).tolist():
        inside = positions[starts[bucket] : starts[bucket] + sizes[bucket]]
        yield from _compare(hashes, inside, max_distance, wanted)


def _compare_shifted(
    hashes: Hashes, positions: Indices, sizes: Indices, max_distance: int, wanted: Wanted
) -> Iterator[Pairs]:
    """Pairs in many small buckets: each hash with the next in its bucket, the one after, …."""
    if not len(positions):
        return
    ends = np.cumsum(sizes)
    is_wanted = wanted(positions, ends - sizes)
    has_wanted = np.logical_or.reduceat(is_wanted, ends - sizes)
    if not has_wanted.all():
        stays = np.repeat(has_wanted, sizes)
        positions, is_wanted, sizes = positions[stays], is_wanted[stays], sizes[has_wanted]
        ends = np.cumsum(sizes)
    num_after = np.repeat(ends, sizes) - np.arange(len(positions)) - 1
    at, of = np.arange(len(positions)), hashes[positions]
    for shift in range(1, int(sizes.max(initial=1))):
        at = at[num_after[at] >= shift]
        other = at + shift
        is_near = np.bitwise_count(of[at] ^ of[other]) <= max_distance
        is_near &= is_wanted[at] | is_wanted[other]
        if is_near.any():
            yield positions[at[is_near]], positions[other[is_near]]


def _compare_all(
    hashes: Hashes, positions: Indices, max_distance: int, wanted: Wanted
) -> Iterator[Pairs]:
    """Pairs in one bucket, some rows of the matrix of distances at a time."""
    while len(positions) > 1:
        num_rows = max(FEWEST_ROWS, BLOCK_COMPARISONS // len(positions))
        is_wanted = wanted(positions, ONE_BUCKET)
        if not is_wanted.any():
            return
        # Of those that are not wanted too: one that is near many may settle all others at once.
        rows = np.concatenate(
            [_some(np.flatnonzero(marks), num_rows) for marks in (is_wanted, ~is_wanted)]
        )
        is_near = np.bitwise_count(hashes[rows, None] ^ hashes) <= max_distance
        is_near[np.arange(len(rows)), rows] = False
        left, right = np.divmod(np.flatnonzero(is_near), len(positions))
        if len(left):
            yield positions[rows[left]], positions[right]
        stays = np.ones(len(positions), dtype=bool)
        stays[rows] = False
        hashes, positions = hashes[stays], positions[stays]


def _some(rows: Indices, number: int) -> Indices:
    """Up to a number of rows, far from each other: together they find more."""
    return rows[:: -(-len(rows) // number) or 1]


def _spread(values: npt.NDArray[Kind], starts: Indices, num: int) -> npt.NDArray[Kind]:
    """The value of each bucket for each of its members."""
    return np.repeat(values, np.diff(starts, append=num))
