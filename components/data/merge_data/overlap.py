"""Which images are left out, so that the merged set has each once and no split leaks into another.

Splits are gone through from the strictest to the one that is learnt from: what stays in a stricter
split of one set is met by no image of another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.data.merge_data.sets import DataSet
from data_contracts.reasons import MergeReason
from pixclip.data.layout import BENCHMARK, SPLITS, TRAIN, VAL
from pixclip.near_duplicates import Hashes, has_near_duplicate_elsewhere

STRICTEST_FIRST = (BENCHMARK, VAL, TRAIN)
Indices = npt.NDArray[np.int64]
NONE = -1


@dataclass(frozen=True)
class LeftOut:
    """Why an image is left out, and which other one decided that."""

    reason: MergeReason
    detail: str


@dataclass(frozen=True)
class Pool:
    """The images of all sets, N together."""

    sets: Sequence[DataSet]
    keys: Hashes
    phash: Hashes
    splits: npt.NDArray[np.int8]
    owner: Indices  # place in `sets`

    def place(self, image: int) -> str:
        """Where an image is, in words."""
        return f"the split {SPLITS[self.splits[image]]} of {self.sets[self.owner[image]].name}"


def find_left_out(sets: Sequence[DataSet], max_distance: int) -> list[dict[int, LeftOut]]:
    """For each set the images that are left out, by their key."""
    tables = [one.images for one in sets]
    pool = Pool(
        sets,
        np.concatenate([table.keys for table in tables]),
        np.concatenate([table.phash for table in tables]),
        np.concatenate([table.splits for table in tables]),
        np.repeat(np.arange(len(sets)), [len(table.keys) for table in tables]),
    )
    is_kept = np.ones(len(pool.keys), dtype=bool)
    is_stricter = np.zeros(len(pool.keys), dtype=bool)
    found: list[dict[int, LeftOut]] = [{} for _ in sets]
    for split in STRICTEST_FIRST:
        is_here = pool.splits == SPLITS.index(split)
        for number in range(len(sets)):
            here = np.flatnonzero(is_here & (pool.owner == number))
            stricter = np.flatnonzero(is_kept & is_stricter & (pool.owner != number))
            earlier = np.flatnonzero(is_kept & is_here & (pool.owner < number))
            gone = {
                **_equal(pool, here, earlier, MergeReason.REPEATED_IMAGE),
                **_alike(pool, here, stricter, max_distance),
                **_equal(pool, here, stricter, MergeReason.LEAKED_IMAGE),
            }
            is_kept[list(gone)] = False
            found[number] |= {int(pool.keys[image]): why for image, why in gone.items()}
        is_stricter |= is_here
    return found


def _equal(pool: Pool, here: Indices, others: Indices, reason: MergeReason) -> dict[int, LeftOut]:
    """The images that are among others, by their bytes."""
    if not len(others):
        return {}
    others = others[np.argsort(pool.keys[others])]
    places = np.searchsorted(pool.keys[others], pool.keys[here]).clip(max=len(others) - 1)
    is_same = pool.keys[others[places]] == pool.keys[here]
    pairs = zip(here[is_same].tolist(), others[places[is_same]].tolist(), strict=True)
    return {
        image: LeftOut(reason, f"the same bytes are in {pool.place(other)}")
        for image, other in pairs
    }


def _alike(pool: Pool, here: Indices, others: Indices, max_distance: int) -> dict[int, LeftOut]:
    """The images that look like others, by their perceptual hashes."""
    if not (len(here) and len(others)):
        return {}
    both = np.concatenate([here, others])
    labels = np.repeat(np.arange(2), [len(here), len(others)])
    is_near = has_near_duplicate_elsewhere(pool.phash[both], labels, max_distance)
    gone = {}
    for image in here[is_near[: len(here)]].tolist():
        apart = np.bitwise_count(pool.phash[others] ^ pool.phash[image])
        # Of several the one with the smallest hash: keys differ from process to process.
        nearest = others[apart == apart.min()]
        other = int(nearest[np.argmin(pool.phash[nearest])])
        gone[image] = LeftOut(
            MergeReason.LEAKED_LOOK_ALIKE,
            f"{apart.min()} of 64 hash bits from {pool.phash[other]:016x} in {pool.place(other)}",
        )
    return gone
