"""Region rows of an image of FineHARD: the image itself first, then every box of it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from components.core.counts import quarantine_row
from components.core.image_check import CheckedImage, check_image
from components.core.tables import Row
from components.data.formats.finehard import FineImage, FineRegion
from components.data.formats.values import BadValueError, record_number
from components.data.import_finehard.files import ImageFiles
from components.data.import_finehard.settings import ImportFineHardSettings
from data_contracts.reasons import FineHardReason
from pixclip.data.layout import WHOLE_IMAGE
from pixclip.masks import Box, encode_box

STEP = "import_finehard"
BOX_SOURCE = "finehard"  # an open-vocabulary detector's (YOLO-World), as the authors publish it
WHOLE_PHRASE, WHOLE_CONTEXT = "whole image", "This is the whole image."
REGION_CONTEXT = "It is a region of the image."
NOT_VERIFIED = "as published; not verified here"
# FineHARD's authors say that CogVLM2-19B described the images; of each text nothing is told.
PROVENANCE = json.dumps(
    {
        "published": {
            "describer": "FineHARD",
            "model": "as published",
            "prompt": "",
            "prompt_version": "",
            "request_hash": "",
        }
    }
)


@dataclass
class Made:
    """What became of an entry: rows and the image they are of, and what was dropped."""

    number: int  # of the entry, among all files
    rows: list[Row] = field(default_factory=list)
    dropped: list[Row] = field(default_factory=list)
    url: str = ""
    image: CheckedImage | None = None
    jpeg: bytes = b""

    def drop_all(self, reason: str, detail: str) -> None:
        """Drop what was kept: it turned out to be of no use."""
        self.dropped += [quarantine_row(STEP, row, reason, detail) for row in self.rows]
        self.rows, self.image, self.jpeg = [], None, b""


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of entries; usable from many threads."""

    files: ImageFiles
    settings: ImportFineHardSettings

    def make(self, number: int, entry: FineImage) -> Made:
        """The rows of an entry; reads and decodes its image."""
        made = Made(number, url=self.files.url(entry.file) if entry.file else "")
        try:
            if entry.fault:
                raise entry.fault
            image, made.jpeg = self._image(entry.file)
        except BadValueError as error:
            for index, region in enumerate(_all_of(entry)):
                self._drop(made, entry, index, region, error)
            return made
        made.image = image
        for index, region in enumerate(_all_of(entry)):
            try:
                if region.fault:
                    raise region.fault
                made.rows.append(self._row(made, entry, index, region, image))
            except BadValueError as error:
                self._drop(made, entry, index, region, error)
        return made

    def _image(self, name: str) -> tuple[CheckedImage, bytes]:
        """What is known of an image, and its upright JPEG.

        Raises:
            BadValueError: why it cannot be used.
        """
        data = self.files.read(name)
        image, jpeg = check_image(data, self.settings.max_pixels, self.settings.min_side_px)
        if image.reason:
            raise BadValueError(image.reason, image.detail)
        if image.orientation != 1:
            detail = f"its EXIF orientation is {image.orientation}"
            raise BadValueError(FineHardReason.ORIENTATION_UNDECIDED, detail)
        return image, jpeg or data

    def _row(
        self, made: Made, entry: FineImage, index: int, region: FineRegion, image: CheckedImage
    ) -> Row:
        assert image.width_px is not None
        assert image.height_px is not None
        width, height = image.width_px, image.height_px
        box = _in_pixels(region.box, width, height)
        if min(box[2] - box[0], box[3] - box[1]) < self.settings.min_box_side_px:
            raise BadValueError(
                FineHardReason.TINY_BOX,
                f"{box[2] - box[0]:.1f} x {box[3] - box[1]:.1f} pixels, a side must have "
                f"{self.settings.min_box_side_px:g}",
            )
        mask, texts, is_whole = encode_box(box, height, width), region.texts, index == 0
        return {
            **_names(made, entry, index, region),
            "image_caption": _caption(entry),
            "score": region.score,
            "split": "",
            "subset": "",
            "image_sha256": image.sha256,
            "image_shard": "",  # told when the group is written
            "image_width_px": width,
            "image_height_px": height,
            "image_phash": image.phash,
            "box_xyxy": list(box),
            "box_source": WHOLE_IMAGE if is_whole else BOX_SOURCE,
            "mask_counts": mask.counts,
            "mask_size": [height, width],
            "mask_area_px": _area_px(box),
            "mask_source": "box",
            "mask_fault": None,
            "mask_score": None,
            # A long caption may have more words than the caption of an object.
            "object_caption": texts.short if is_whole else texts.long,
            "verdict": "accepted",
            "verdict_reason": NOT_VERIFIED,
            "context_caption": WHOLE_CONTEXT if is_whole else REGION_CONTEXT,
            "long_caption": texts.long,
            "short_caption": texts.short,
            "hard_negatives": list(region.negatives),
            "provenance": PROVENANCE,
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "cost_usd": 0.0,
        }

    def _drop(
        self, made: Made, entry: FineImage, index: int, region: FineRegion, error: BadValueError
    ) -> None:
        row = {
            **_names(made, entry, index, region),
            "file": entry.file,
            "box": list(region.box),
            "texts": [region.texts.short, region.texts.long],
            "hard_negatives": list(region.negatives),
        }
        if made.image:
            row["image_sha256"] = made.image.sha256
        detail = f"{entry.place}, {region.name}: {error.detail}"
        made.dropped.append(quarantine_row(STEP, row, error.reason, detail))


def _all_of(entry: FineImage) -> Sequence[FineRegion]:
    return (entry.whole, *entry.regions)


def _caption(entry: FineImage) -> str:
    """What the image shows; without a caption of its own, what its regions show."""
    parts = (region.texts.short for region in entry.regions if not region.fault)
    return entry.whole.texts.short or ", ".join(parts)


def _names(made: Made, entry: FineImage, index: int, region: FineRegion) -> Row:
    record = record_number(f"{STEP}/{entry.file or entry.place}")
    return {
        "region_id": f"{record}-{index:02d}",
        "record_id": str(record),
        "url": made.url or f"file:///{entry.place}",
        "phrase": WHOLE_PHRASE if index == 0 else region.texts.short,
    }


def _in_pixels(box: Box, width: int, height: int) -> Box:
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height


def _area_px(box: Box) -> int:
    """The pixels of the box's mask, which those count to that it touches."""
    x1, y1, x2, y2 = box
    return (math.ceil(x2) - math.floor(x1)) * (math.ceil(y2) - math.floor(y1))
