"""Judge the regions of a batch: kept, or the first reason against each.

Repeated ids, addresses and regions are found in memory of eight bytes a record.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.data.select.regions import Bools, Floats, Ints, Regions, marks, read_column
from components.data.select.rules import RECORD_RULES, REGION_RULES, Rule
from components.data.select.settings import SelectSettings
from data_contracts.reasons import SelectReason

KEPT = -1


def _nothing(regions: Regions, settings: SelectSettings) -> Bools:
    return np.zeros(len(regions), dtype=bool)


def _earlier(regions: Regions, i: int, settings: SelectSettings) -> str:
    return "an earlier record or region is the same"


# Judged with the help of what was met before, not by the batch alone.
DUPLICATE_ID = Rule(SelectReason.DUPLICATE_ID, _nothing, _earlier)
DUPLICATE_URL = Rule(SelectReason.DUPLICATE_URL, _nothing, _earlier)
DUPLICATE_REGION = Rule(SelectReason.DUPLICATE_REGION, _nothing, _earlier)
RULES = (*RECORD_RULES, DUPLICATE_ID, *REGION_RULES, DUPLICATE_URL, DUPLICATE_REGION)


@dataclass(frozen=True)
class Verdict:
    """For each region the number of the rule in `RULES` that it breaks, or `KEPT`."""

    rule: Ints
    has_unique_id: Bools  # of each record: nobody before had its id

    @property
    def kept(self) -> Ints:
        """The rows of the regions that stay."""
        return np.flatnonzero(self.rule == KEPT)

    @property
    def dropped(self) -> Ints:
        """The rows of the regions that go."""
        return np.flatnonzero(self.rule != KEPT)


Keys = npt.NDArray[np.int64]


# Find repeated ids, addresses and regions in memory of eight bytes a record.
#
# A first pass keeps one 64-bit key a record and finds the keys that occur more than once; the
# second pass then remembers only which of those it has met.


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


def judge(regions: Regions, history: History, settings: SelectSettings) -> Verdict:
    """The verdict on a batch; `history` must have judged all batches before it."""
    rule = np.full(len(regions), KEPT, dtype=np.int64)

    def drop(number: int, breaks: Bools) -> None:
        rule[(rule == KEPT) & breaks] = number

    with np.errstate(invalid="ignore", over="ignore"):  # NaN and inf have a rule of their own
        for number, entry in enumerate(RULES):
            drop(number, entry.breaks(regions, settings))
    is_later_id = _later_ids(regions, history)
    # A repeated id counts before the other reasons: two regions must not bear one name.
    rule[is_later_id[regions.record]] = RULES.index(DUPLICATE_ID)
    drop(RULES.index(DUPLICATE_URL), _later_urls(regions, history, rule == KEPT))
    same = repeated_regions(regions.record, regions.phrases, regions.box, rule == KEPT)
    drop(RULES.index(DUPLICATE_REGION), same)
    has_id = marks(regions.records.column("id").is_valid())
    return Verdict(rule, has_id & ~is_later_id)


def _later_ids(regions: Regions, history: History) -> Bools:
    ids = regions.records.column("id")
    return history.ids.later(record_keys(ids), marks(ids.is_valid()))


def _later_urls(regions: Regions, history: History, is_kept: Bools) -> Bools:
    """Of the records that still have a region, those whose address an earlier such one has."""
    lives = np.zeros(regions.records.num_rows, dtype=bool)
    lives[regions.record[is_kept]] = True
    urls = pc.fill_null(regions.records.column("url"), "")
    return history.urls.later(record_keys(urls), lives)[regions.record]


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
