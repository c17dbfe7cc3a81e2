"""Cut a group into parts of some images, one Parquet file each; a rerun does what is missing."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from components.kernel.tables import WORK_FOLDER, Row, read_rows, write_rows
from components.kernel.tally import quarantine_row, write_quarantine
from components.segment.masking import RECORD, Masker, Outcome
from data_contracts.regions import SCHEMA

# A record's mask without its damaged parts; one made because nothing of the own was usable.
REPAIRED, REPLACED = "repaired", "replaced"
ImageRows = list[Row]  # the candidates of one image


@dataclass(frozen=True)
class PartReport:
    """What a finished part adds to the step's metrics."""

    num_images: int
    num_masks: dict[str, int]  # mask source -> number
    num_flawed: dict[str, int]  # what became of records' masks with a fault -> number
    reasons: dict[str, int]  # quarantine reason -> number
    iou_sum: float
    num_iou: int


@dataclass(frozen=True)
class Part:
    """One of the files of `regions`, and what is kept beside it until the step is done."""

    regions: Path
    number: int

    @property
    def table(self) -> Path:
        """The region rows; written last, so that it marks the part as done."""
        return self.regions / f"part-{self.number:05d}.parquet"

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


def split_images(rows: Iterable[Row], images_per_part: int) -> Iterator[list[ImageRows]]:
    """Candidates by image, some images at a time; an empty part if there are no rows.

    The rows of an image follow each other in `candidates`.
    """
    images = (
        list(group)
        for _, group in itertools.groupby(rows, key=lambda row: str(row["image_sha256"]))
    )
    yield list(itertools.islice(images, images_per_part))
    while part := list(itertools.islice(images, images_per_part)):
        yield part


def mask_part(
    images: Sequence[ImageRows], masker: Masker, images_per_batch: int, num_threads: int
) -> list[Outcome]:
    """The outcomes of a part's rows in order, whatever the number of threads."""
    starts = range(0, len(images), images_per_batch)
    batches = [images[start : start + images_per_batch] for start in starts]
    with ThreadPoolExecutor(num_threads) as pool:
        return [outcome for found in pool.map(masker.mask_images, batches) for outcome in found]
