"""The step that gives every region a mask.

A group is cut into parts of some images, a Parquet file each; a rerun does what is missing.

pixclip segment --candidates … --images … --regions … --quarantine … --set source=grabcut
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from components.core.counts import (
    REASON_PREFIX,
    ROWS_IN,
    ROWS_QUARANTINED,
    quarantine_row,
    region_counts,
    write_quarantine,
)
from components.core.errors import GateError
from components.core.progress import progress
from components.core.step import In, Metrics, Out, Work, step
from components.core.tables import (
    WORK_FOLDER,
    ImageRows,
    Row,
    count_rows,
    part_name,
    read_rows,
    split_images,
    write_rows,
)
from components.data.segment.masking import RECORD, Masker, Outcome
from components.data.segment.segmenter import BoxSegmenter, Segmenter
from components.data.segment.settings import SegmentSettings
from data_contracts.regions import SCHEMA


def require_enough(metrics: Mapping[str, int | float], settings: SegmentSettings) -> None:
    """Refuse masks if too many regions were lost.

    Raises:
        GateError: with the reasons.
    """
    lost, num_regions = metrics[ROWS_QUARANTINED], metrics[ROWS_IN]
    if lost > settings.max_quarantined_share * num_regions:
        reasons = {
            name.removeprefix(REASON_PREFIX): int(number)
            for name, number in metrics.items()
            if name.startswith(REASON_PREFIX)
        }
        raise GateError(
            f"segment lost {lost} of {num_regions} regions",
            reasons,
            "Look at the reasons; past segment.max_quarantined_share the masks are not published.",
        )


@step(image="annotate", version=3, gpus=1, gate=require_enough, work=Work.KEPT)
def segment(
    candidates: In, images: In, regions: Out, quarantine: Out, settings: SegmentSettings
) -> Metrics:
    """Give every region a mask: the record's own, SAM's, GrabCut's, or the box itself.

    Every image is decoded and encoded once for all its boxes. A mask lies inside its box (with a
    margin), is not empty and is of the region's own image: an image that fails sends its regions
    to the quarantine.
    """
    num_regions = count_rows(candidates)
    (regions / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
    segmenter = build_segmenter(settings)
    batch, threads = (
        (segmenter.images_per_batch, segmenter.num_threads) if segmenter is not None else (1, 1)
    )
    masker = Masker(images, segmenter, settings)
    parts: list[Part] = []
    with progress("segment", num_regions) as bar:
        for image_rows in split_images(read_rows(candidates), settings.images_per_part):
            parts.append(Part(regions, len(parts)))
            if not parts[-1].table.exists():
                outcomes = mask_part(image_rows, masker, batch, threads)
                parts[-1].write(outcomes, len(image_rows))
            bar.update(sum(map(len, image_rows)))
    write_quarantine(quarantine, (row for part in parts for row in part.quarantined()))
    metrics = _count(num_regions, [part.read_report() for part in parts])
    require_enough(metrics, settings)
    return metrics


@dataclass(frozen=True)
class PartReport:
    """What a finished part adds to the step's metrics."""

    num_images: int
    num_masks: dict[str, int]  # mask source -> number
    num_flawed: dict[str, int]  # what became of records' masks with a fault -> number
    reasons: dict[str, int]  # quarantine reason -> number
    iou_sum: float
    num_iou: int


def _count(num_regions: int, reports: Sequence[PartReport]) -> Metrics:
    reasons = sum((Counter(report.reasons) for report in reports), Counter[str]())
    sources = sum((Counter(report.num_masks) for report in reports), Counter[str]())
    flawed = sum((Counter(report.num_flawed) for report in reports), Counter[str]())
    num_iou = sum(report.num_iou for report in reports)
    metrics = region_counts(
        num_regions,
        sources.total(),
        reasons,
        num_images=sum(report.num_images for report in reports),
        **{f"masks_from.{source}": number for source, number in sorted(sources.items())},
        **{f"masks_{fate}": flawed[fate] for fate in (REPAIRED, REPLACED)},
    )
    if num_iou:
        iou_sum = sum(report.iou_sum for report in reports)
        metrics["mean_iou_with_record_mask"] = round(iou_sum / num_iou, 6)
    return metrics


# A record's mask without its damaged parts; one made because nothing of the own was usable.
REPAIRED, REPLACED = "repaired", "replaced"


@dataclass(frozen=True)
class Part:
    """One of the files of `regions`, and what is kept beside it until the step is done."""

    regions: Path
    number: int

    @property
    def table(self) -> Path:
        """The region rows; written last, so that it marks the part as done."""
        return self.regions / part_name(self.number)

    @property
    def quarantine(self) -> Path:
        """The part's dropped rows."""
        return self.regions / WORK_FOLDER / f"quarantine-{self.number:05d}.parquet"

    @property
    def report(self) -> Path:
        """The part's counts."""
        return self.regions / WORK_FOLDER / f"report-{self.number:05d}.json"

    def read_report(self) -> PartReport:
        """The counts of a finished part."""
        return PartReport(**json.loads(self.report.read_text(encoding="utf-8")))

    def write(self, outcomes: Sequence[Outcome], num_images: int) -> None:
        """Keep what became of the part's rows."""
        lost = [outcome for outcome in outcomes if outcome.region is None]
        write_quarantine(
            self.quarantine,
            (quarantine_row("segment", o.candidate, o.reason, o.detail) for o in lost),
        )
        self.report.write_text(
            json.dumps(asdict(summarise(outcomes, num_images))), encoding="utf-8"
        )
        regions = (outcome.region for outcome in outcomes if outcome.region is not None)
        write_rows(self.table, regions, SCHEMA)

    def quarantined(self) -> Iterator[Row]:
        """The dropped rows of a finished part."""
        return read_rows(self.quarantine)


def summarise(outcomes: Sequence[Outcome], num_images: int) -> PartReport:
    """The counts of some rows."""
    regions = [outcome.region for outcome in outcomes if outcome.region is not None]
    sources = (region["mask_source"] for region in regions)
    flawed = (fate for outcome in outcomes if (fate := _fate_of_flawed(outcome)))
    reasons = (outcome.reason for outcome in outcomes if outcome.region is None)
    ious = [outcome.iou for outcome in outcomes if outcome.iou is not None]
    return PartReport(
        num_images,
        dict(Counter(sources)),
        dict(Counter(flawed)),
        dict(Counter(reasons)),
        sum(ious),
        len(ious),
    )


def _fate_of_flawed(outcome: Outcome) -> str:
    """What became of a record's mask with a fault; "" if it had none or its region is lost."""
    if outcome.region is None or outcome.region["mask_fault"] is None:
        return ""
    return REPAIRED if outcome.region["mask_source"] == RECORD else REPLACED


def mask_part(
    images: Sequence[ImageRows], masker: Masker, images_per_batch: int, num_threads: int
) -> list[Outcome]:
    """The outcomes of a part's rows in order, whatever the number of threads."""
    starts = range(0, len(images), images_per_batch)
    batches = [images[start : start + images_per_batch] for start in starts]
    with ThreadPoolExecutor(num_threads) as pool:
        return [outcome for found in pool.map(masker.mask_images, batches) for outcome in found]


def build_segmenter(settings: SegmentSettings) -> Segmenter | None:
    """The segmenter that the settings choose, or None if rows need a mask of their own."""
    if settings.generator == "sam":
        from components.data.segment.sam import SamSegmenter

        return SamSegmenter(settings.sam)
    if settings.generator == "grabcut":
        from components.data.segment.grabcut import GrabCutSegmenter

        return GrabCutSegmenter(settings.grabcut)
    return BoxSegmenter() if settings.generator == "box" else None
