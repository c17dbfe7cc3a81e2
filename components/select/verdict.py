"""Judge the regions of a batch: kept, or the first reason against each."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from components.select.duplicates import History, record_keys, repeated_regions
from components.select.regions import Bools, Ints, Regions, marks
from components.select.rules import RECORD_RULES, REGION_RULES, Rule
from components.select.settings import SelectSettings
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
