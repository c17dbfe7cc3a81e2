"""The step that finds the parts of objects whose source annotates none.

    pixclip detect-parts --candidates candidates --images images --detected detected \\
        --quarantine detect_parts.parquet --params params/fgpart.yaml

Images are cut into files of some images each; a rerun does what is missing.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image

from components.core.counts import ROWS_FOUND, quarantine_row, region_counts, write_quarantine
from components.core.errors import GateError
from components.core.progress import progress
from components.core.shards import read_image_bytes
from components.core.step import In, Metrics, Out, Work, step
from components.core.tables import (
    WORK_FOLDER,
    ImageRows,
    Row,
    count_rows,
    groups_of,
    part_name,
    read_rows,
    split_images,
    write_rows,
)
from components.data.detect_parts.choosing import choose_parts
from components.data.detect_parts.detector import Detection, Detector
from components.data.detect_parts.settings import DetectPartsSettings
from data_contracts.candidates import OBJECT, SCHEMA
from data_contracts.reasons import DetectReason
from pixclip.data.layout import WHOLE_IMAGE
from pixclip.images import ImageError, open_image
from pixclip.masks import Box

STEP = "detect_parts"
SEARCHED, WITH_PARTS = "images_searched", "images_with_parts"
MISSING, PASSED_OVER = "parts_not_found", "boxes_passed_over"


def require_found(metrics: Mapping[str, int | float], settings: DetectPartsSettings) -> None:
    """Refuse a detector that finds nothing in most images.

    Raises:
        GateError: with the numbers.
    """
    searched, with_parts = metrics[SEARCHED], metrics[WITH_PARTS]
    if with_parts < settings.min_found_share * searched:
        raise GateError(
            f"detect_parts found parts in {with_parts} of {searched} images",
            {MISSING: int(metrics[MISSING])},
            "Look at the quarantine, detect_parts.box_threshold and detect_parts.query; below "
            "detect_parts.min_found_share nothing is published.",
        )


@step(image="annotate", version=2, gpus=1, gate=require_found, work=Work.KEPT)
def detect_parts(
    candidates: In, images: In, detected: Out, quarantine: Out, settings: DetectPartsSettings
) -> Metrics:
    """Find the parts of objects that no source annotates, with an open-vocabulary detector.

    An image is searched if its super-class has names of parts and none of its regions is a part.
    What a detector finds is untrusted: of each part the best box that keeps the rules becomes a
    region, or the best goes to the quarantine. Other rows go on as they are: out come all rows that
    went in and those found, whose `box_source` names model, commit and thresholds.
    """
    num_regions = count_rows(candidates)
    finder = Finder(settings)
    files: list[FoundFile] = []
    with progress("detect_parts", num_regions) as bar:
        for group in groups_of(candidates) or [""]:  # one group alone is taken too
            rows = read_rows(candidates / group)
            for number, some in enumerate(split_images(rows, settings.images_per_file)):
                files.append(FoundFile(detected, group, number))
                if not files[-1].table.exists():
                    files[-1].write(finder.find(images / group, some))
                bar.update(sum(map(len, some)))
    write_quarantine(quarantine, (row for file in files for row in read_rows(file.quarantine)))
    metrics = _count(num_regions, files)
    require_found(metrics, settings)
    return metrics


@dataclass
class Found:
    """What became of some images."""

    rows: list[Row] = field(default_factory=list)
    dropped: list[Row] = field(default_factory=list)  # in the quarantine's form
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class FoundFile:
    """One of the files of `detected`, and what is kept beside it until the step is done."""

    detected: Path
    group: str
    number: int

    @property
    def table(self) -> Path:
        """The region rows; written last, so that it marks the file as done."""
        return self.detected / self.group / part_name(self.number)

    @property
    def quarantine(self) -> Path:
        """The dropped rows."""
        return self._work(".parquet")

    @property
    def counts(self) -> Counter[str]:
        """The counts of a finished file."""
        return Counter(json.loads(self._work(".json").read_text(encoding="utf-8")))

    def write(self, found: Found) -> None:
        """Keep what became of the file's images."""
        write_quarantine(self.quarantine, found.dropped)
        self._work(".json").write_text(json.dumps(found.counts), encoding="utf-8")
        write_rows(self.table, found.rows, SCHEMA)

    def _work(self, ending: str) -> Path:
        return self.detected / WORK_FOLDER / f"{self.group}-{self.number:05d}{ending}"


def _count(num_regions: int, files: Sequence[FoundFile]) -> Metrics:
    counts = sum((file.counts for file in files), Counter[str]())
    reasons = Counter(row["reason"] for file in files for row in read_rows(file.quarantine))
    names = (ROWS_FOUND, SEARCHED, WITH_PARTS, MISSING, PASSED_OVER)
    return region_counts(
        num_regions,
        sum(count_rows(file.table) for file in files),
        reasons,
        **{name: counts[name] for name in names},
    )


class Finder:
    """Finds the parts of images; the model is loaded for the first that needs it."""

    def __init__(self, settings: DetectPartsSettings) -> None:
        self._settings = settings

    @cached_property
    def _detector(self) -> Detector:
        from components.data.detect_parts.models import build_detector

        return build_detector(self._settings)

    def find(self, images: Path, some: Sequence[ImageRows]) -> Found:
        """The rows of some images of a group, each with its parts."""
        found = Found()
        answers = self._search(images, some)
        for place, rows in enumerate(some):
            answer = answers.get(place, [])
            if isinstance(answer, ImageError):
                found.dropped += [
                    quarantine_row(STEP, row, answer.reason, answer.detail) for row in rows
                ]
                continue
            found.rows += rows
            if place in answers:
                self._add_parts(rows, answer, found)
        found.counts[SEARCHED] = len(answers)
        return found

    def _search(
        self, images: Path, some: Sequence[ImageRows]
    ) -> dict[int, list[Detection] | ImageError]:
        """What the detector says of the images that lack parts, by their places."""
        answers: dict[int, list[Detection] | ImageError] = {}
        wanted: dict[str, list[int]] = {}
        for place, rows in enumerate(some):
            if self._is_searched(rows):
                wanted.setdefault(rows[0]["subset"], []).append(place)
        for super_class, places in wanted.items():
            queries = self._settings.queries(super_class)
            for start in range(0, len(places), self._settings.images_per_batch):
                opened: dict[int, Image.Image] = {}
                for place in places[start : start + self._settings.images_per_batch]:
                    try:
                        opened[place] = open_image_of(images, some[place][0])
                    except ImageError as error:
                        answers[place] = error
                if opened:
                    said = self._detector.detect(list(opened.values()), queries)
                    answers.update(zip(opened, said, strict=True))
        return answers

    def _is_searched(self, rows: ImageRows) -> bool:
        has_parts = any(row["box_source"] not in (WHOLE_IMAGE, OBJECT) for row in rows)
        return not has_parts and bool(self._settings.parts.get(rows[0]["subset"]))

    def _add_parts(self, rows: ImageRows, detections: list[Detection], found: Found) -> None:
        """Add the parts of an image to its rows; a part's number is its place among the names."""
        names = self._settings.parts[rows[0]["subset"]]
        after = 1 + max(int(row["region_id"].rpartition("-")[2]) for row in rows)
        choices = choose_parts(detections, object_box_of(rows), self._settings.rules)
        for choice in choices:
            row = {
                **rows[0],
                "region_id": f"{rows[0]['record_id']}-{after + choice.detection.query:02d}",
                "phrase": names[choice.detection.query],
                "score": choice.detection.score,
                "box_xyxy": list(choice.detection.box),
                "mask_counts": None,
                "mask_size": None,
                "mask_fault": None,
                "box_source": self._detector.source,
            }
            if choice.reason:
                found.dropped.append(quarantine_row(STEP, row, choice.reason, choice.detail))
            else:
                found.rows.append(row)
        found.counts[ROWS_FOUND] += len(choices)
        found.counts[WITH_PARTS] += any(not choice.reason for choice in choices)
        found.counts[MISSING] += len(names) - len(choices)
        found.counts[PASSED_OVER] += len(detections) - len(choices)


def open_image_of(images: Path, row: Row) -> Image.Image:
    """The upright image of a row.

    Raises:
        ImageError: it cannot be decoded, or is not of the size that the row says.
    """
    image = open_image(read_image_bytes(images, row["image_shard"], row["image_sha256"]))
    expected = (row["image_width_px"], row["image_height_px"])
    if image.size != expected:
        detail = f"image {image.size}, its rows {expected}"
        raise ImageError(DetectReason.IMAGE_SIZE_MISMATCH, detail)
    return image


def object_box_of(rows: ImageRows) -> Box:
    """The object's own box; without one that of the whole image."""
    boxes = {row["box_source"]: row["box_xyxy"] for row in rows}
    whole = [0, 0, rows[0]["image_width_px"], rows[0]["image_height_px"]]
    x1, y1, x2, y2 = boxes.get(OBJECT) or boxes.get(WHOLE_IMAGE) or whole
    return x1, y1, x2, y2
