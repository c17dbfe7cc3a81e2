"""Find repeated ids, addresses and regions in memory of eight bytes a record.

A first pass keeps one 64-bit key a record and finds the keys that occur more than once; the
second pass then remembers only which of those it has met.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.select.regions import Bools, Floats, Ints
from components.select.source import read_column

Keys = npt.NDArray[np.int64]


class Repeats:
    """The keys that occur more than once, and which of them were met so far."""

    def __init__(self, keys: Keys) -> None:
        """`keys` is sorted in place."""
        keys.sort()
        is_repeat = keys[1:] == keys[:-1]
        self._repeated = np.unique(keys[1:][is_repeat])
        self._is_met = np.zeros(len(self._repeated), dtype=bool)

    def later(self, keys: Keys, eligible: Bools) -> Bools:
        """Marks every eligible key whose like was met before, here or in earlier calls."""
        later = np.zeros(len(keys), dtype=bool)
        if not len(self._repeated):
            return later
        slots = np.searchsorted(self._repeated, keys).clip(max=len(self._repeated) - 1)
        rows = np.flatnonzero((self._repeated[slots] == keys) & eligible)
        found = slots[rows]
        is_first = np.zeros(len(rows), dtype=bool)
        is_first[np.unique(found, return_index=True)[1]] = True
        later[rows] = self._is_met[found] | ~is_first
        self._is_met[found] = True
        return later


@dataclass(frozen=True)
class History:
    """What the whole source repeats."""

    ids: Repeats
    urls: Repeats


def find_repeats(paths: Sequence[Path]) -> History:
    """The repeated ids and addresses of a source."""
    return History(ids=Repeats(_collect(paths, "id")), urls=Repeats(_collect(paths, "url")))


def record_keys(values: pa.Array) -> Keys:
    """A 64-bit key for every id or address.

    Texts are hashed by Python with this process's secret: nobody can prepare addresses that
    collide, and for 20 M records a chance collision has a probability of 1 in 100,000.
    """
    if pa.types.is_integer(values.type):
        return np.asarray(pc.fill_null(values, 0), dtype=np.int64)
    return np.fromiter(map(hash, values.to_pylist()), dtype=np.int64, count=len(values))


def repeated_regions(record: Ints, phrases: Sequence[str], box: Floats, eligible: Bools) -> Bools:
    """Marks an eligible region whose record names the same phrase with the same box before."""
    rows = np.flatnonzero(eligible)
    names = np.fromiter(
        (hash(phrases[row]) for row in rows.tolist()), dtype=np.int64, count=len(rows)
    )
    columns = [*box[rows].T, names, record[rows]]
    order = np.lexsort([np.arange(len(rows)), *columns])
    is_same = np.ones(max(len(rows) - 1, 0), dtype=bool)
    for column in columns:
        is_same &= column[order][1:] == column[order][:-1]
    repeated = np.zeros(len(record), dtype=bool)
    repeated[rows[order[1:][is_same]]] = True
    return repeated


def _collect(paths: Sequence[Path], name: str) -> Keys:
    keys = [np.empty(0, dtype=np.int64), *map(record_keys, read_column(paths, name))]
    return np.concatenate(keys)
