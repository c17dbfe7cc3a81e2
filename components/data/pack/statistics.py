"""The numbers of the data set: counts, lengths, sizes, positions, losses, cost. Streamed."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.receipts import read_receipt
from components.core.tables import Row, groups_of, read_batches, read_rows, table_paths
from components.data.pack.writer import read_provenance
from components.steps import STEPS
from data_contracts.candidates import DETECTED
from data_contracts.engine.reading import read_schema
from data_contracts.reasons import SegmentReason
from pixclip.data.layout import SPLITS

# Shares of the image that a mask fills; each bin is twice as wide as the one before.
AREA_EDGES = (0.0, *(2.0**power for power in range(-9, 1)))
GRID_CELLS = 24
STAGES = ("mask", "object", "verify", "context", "merge", "check")
OWN_MASK = "record"  # the source of a mask that came with its record, as `segment` names it
HARD_NEGATIVES = "hard_negatives"  # a column that captions need not have
DETECT = "detect_parts"  # the step that brings in regions
COST_FIELDS = ("num_requests", "prompt_tokens", "completion_tokens", "cost_usd")
WHO_FIELDS = ("describer", "model", "prompt", "prompt_version")


@dataclass
class SplitCount:
    """How much a split holds."""

    num_images: int = 0
    num_regions: int = 0
    subsets: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class FunnelStage:
    """A step's share of the losses."""

    step: str
    regions_in: int
    reasons: Counter[str]
    regions_found: int = 0

    @property
    def regions_out(self) -> int:
        """The regions that went on."""
        return self.regions_in + self.regions_found - self.reasons.total()


@dataclass
class Statistics:
    """All that the card and the report page say in numbers."""

    splits: dict[str, SplitCount] = field(default_factory=dict)
    long_words: Counter[int] = field(default_factory=Counter)
    short_words: Counter[int] = field(default_factory=Counter)
    mask_sources: Counter[str] = field(default_factory=Counter)
    masks_repaired: int = 0  # the source's own, without parts that could not be read
    masks_replaced: int = 0  # made, because nothing of the source's own could be read
    num_hard_negatives: int = 0
    contrasted_regions: int = 0  # that have a hard negative
    mask_shares: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(len(AREA_EDGES) - 1, dtype=np.int64)
    )
    cover: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((GRID_CELLS, GRID_CELLS), dtype=np.int64)
    )
    funnel: list[FunnelStage] = field(default_factory=list)
    who: Counter[tuple[str, ...]] = field(default_factory=Counter)  # (stage, *WHO_FIELDS)
    cost: dict[str, float] = field(default_factory=dict)

    @property
    def masks_lost(self) -> int:
        """Regions that are missing because nothing of the source's own mask could be read."""
        return sum(stage.reasons[SegmentReason.OWN_MASK_UNUSABLE] for stage in self.funnel)

    @property
    def num_regions(self) -> int:
        """Regions in the data set."""
        return sum(split.num_regions for split in self.splits.values())

    @property
    def num_images(self) -> int:
        """Images in the data set."""
        return sum(split.num_images for split in self.splits.values())


def measure(manifest: Path, captions: Path, quarantines: Path, steps: Sequence[str]) -> Statistics:
    """The statistics of a written data set; `steps` are shown also if they lost nothing."""
    statistics = Statistics()
    _measure_manifest(manifest, statistics)
    found = count_found(captions, quarantines)
    statistics.funnel = funnel(statistics.num_regions, count_reasons(quarantines), steps, found)
    _count_flawed_masks(captions, statistics)
    statistics.who = _count_who(captions)
    _count_hard_negatives(captions, statistics)
    statistics.cost = _sum_cost(captions)
    return statistics


def mean_words(words: Counter[int]) -> float:
    """The mean of a counter of lengths; 0 if it is empty."""
    return sum(length * count for length, count in words.items()) / max(1, words.total())


def funnel(
    regions_out: int,
    reasons: dict[str, Counter[str]],
    shown: Sequence[str],
    regions_found: int = 0,
) -> list[FunnelStage]:
    """The steps in their order; what a step took in is what came out plus what it dropped.

    `regions_found`: those of them that `detect_parts` brought in.
    """
    order = {step: index for index, step in enumerate(STEPS)}
    found = {DETECT: regions_found} if regions_found else {}
    steps = {*reasons, *shown, *found}
    stages: list[FunnelStage] = []
    for step in sorted(steps, key=lambda step: (order.get(step, -1), step), reverse=True):
        lost = reasons.get(step, Counter())
        regions_out += lost.total() - found.get(step, 0)
        stages.append(FunnelStage(step, regions_out, lost, found.get(step, 0)))
    return stages[::-1]


def quarantine_rows(quarantines: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """All dropped regions; none if no step dropped any."""
    if any(quarantines.rglob("*.parquet")):
        yield from read_rows(quarantines, columns)


def _measure_manifest(manifest: Path, statistics: Statistics) -> None:
    statistics.splits = {split: SplitCount() for split in SPLITS}
    last_image = None
    for batch in read_batches(manifest):
        rows = batch.to_pylist()
        for row in rows:
            split = statistics.splits[row["split"]]
            split.num_images += row["image_id"] != last_image  # an image's regions are neighbours
            split.num_regions += 1
            split.subsets[row["subset"]] += 1
            last_image = row["image_id"]
            statistics.long_words[row["long_caption_words"]] += 1
            statistics.short_words[row["short_caption_words"]] += 1
            statistics.mask_sources[row["mask_source"]] += 1
            _add_cover(statistics.cover, row)
        shares = [
            row["mask_area_px"] / (row["image_width_px"] * row["image_height_px"]) for row in rows
        ]
        statistics.mask_shares += np.histogram(shares, AREA_EDGES)[0]


def _add_cover(cover: npt.NDArray[np.int64], row: Row) -> None:
    """Count the cells of the image that a box touches."""
    x1, y1, x2, y2 = row["box_xyxy"]
    width, height = row["image_width_px"], row["image_height_px"]
    columns = slice(int(x1 / width * GRID_CELLS), int(np.ceil(x2 / width * GRID_CELLS)))
    rows = slice(int(y1 / height * GRID_CELLS), int(np.ceil(y2 / height * GRID_CELLS)))
    cover[rows, columns] += 1


def count_reasons(quarantines: Path) -> dict[str, Counter[str]]:
    """How many regions each step dropped, by reason."""
    reasons: dict[str, Counter[str]] = {}
    for row in quarantine_rows(quarantines, ["step", "reason"]):
        reasons.setdefault(str(row["step"]), Counter())[str(row["reason"])] += 1
    return reasons


def count_found(captions: Path, quarantines: Path) -> int:
    """How many regions a detector brought in, also those that were dropped later."""
    kept = sum(
        str(row["box_source"]).startswith(DETECTED) for row in read_rows(captions, ["box_source"])
    )
    mark = f'"box_source": "{DETECTED}'  # quotes inside a text would be escaped
    return kept + sum(mark in row["row"] for row in quarantine_rows(quarantines, ["row"]))


def _count_flawed_masks(captions: Path, statistics: Statistics) -> None:
    for row in read_rows(captions, ["mask_source", "mask_fault"]):
        if row["mask_fault"] is not None:
            is_own = row["mask_source"] == OWN_MASK
            statistics.masks_repaired += is_own
            statistics.masks_replaced += not is_own


def _count_who(captions: Path) -> Counter[tuple[str, ...]]:
    """Regions by stage and by who spoke there: describer, model, prompt and its version."""
    who: Counter[tuple[str, ...]] = Counter()
    for row in read_rows(captions, ["region_id", "provenance"]):
        for stage, said in read_provenance(row).items():
            who[(stage, *(str(said.get(name) or "") for name in WHO_FIELDS))] += 1
    return Counter({speaker: who[speaker] for speaker in sorted(who, key=stage_order)})


def stage_order(item: Sequence[Any]) -> tuple[int, Sequence[Any]]:
    """A key that sorts things which begin with a stage's name into the order of the stages."""
    return STAGES.index(item[0]) if item[0] in STAGES else len(STAGES), item


def _count_hard_negatives(captions: Path, statistics: Statistics) -> None:
    if all(HARD_NEGATIVES in read_schema(path).names for path in table_paths(captions)):
        for row in read_rows(captions, [HARD_NEGATIVES]):
            statistics.num_hard_negatives += len(row[HARD_NEGATIVES])
            statistics.contrasted_regions += bool(row[HARD_NEGATIVES])


def _sum_cost(captions: Path) -> dict[str, float]:
    """What the groups' receipts say of requests, tokens and money."""
    receipts = [read_receipt(captions / group) for group in groups_of(captions)]
    return {
        name: sum(receipt.metrics.get(name, 0) for receipt in receipts if receipt)
        for name in COST_FIELDS
    }
