"""GRIT records of images with parts: the whole image first, then every part as a region."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from components.core.counts import quarantine_row
from components.core.tables import Row
from components.data.formats.aircraft import LEVELS
from components.data.formats.files import Files
from components.data.formats.parts import Part, PartImage, Point
from components.data.formats.segmentation import box_of_mask, own_mask
from components.data.formats.values import BadValueError, record_number
from components.data.import_parts.part_boxes import boxes_of_points, cut_by_mask, intersection
from components.data.import_parts.settings import ImportPartsSettings
from data_contracts.candidates import OBJECT
from data_contracts.reasons import ImportReason, PartReason
from pixclip.images import ImageError, open_image, read_size
from pixclip.masks import Box, Mask, encode_mask

STEP = "import_parts"
# Where a region's box comes from, as the column `box_source` says it.
WHOLE_IMAGE, FROM_POINT, PUBLISHED = "image", "points", "published"
MAJORITY = 128  # of 255: CUB's masks hold the share of annotators that drew a pixel


@dataclass(frozen=True)
class Region:
    """A region of a record; box in pixels of the stored image."""

    phrase: str
    box: Box
    box_source: str
    counts: str | None = None
    fault: str | None = None
    point: Point | None = None  # that the box was made of


@dataclass
class Made:
    """What became of an image: its record, if it has one, and what was dropped on the way."""

    row: Row | None = None
    dropped: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class RecordMaker:
    """Makes the records of one source; usable from many threads."""

    source: str
    files: Files
    settings: ImportPartsSettings

    def make(self, image: PartImage) -> Made:
        """The record of an image."""
        made = Made()
        try:
            url, width, height = self._look_at(image)
            shown = (0.0, 0.0, float(width), float(height - image.banner_px))
            mask, fault = self._mask(image, width, height)
        except BadValueError as error:
            self._drop_all(image, error, made)
            return made
        regions = [Region(self._phrase(image), shown, WHOLE_IMAGE)]
        if not image.has_parts and image.box and (box := intersection(image.box, shown)):
            regions.append(Region(f"whole {image.super_class}", box, OBJECT))
        regions += self._regions(image, shown, mask, fault, url, made)
        regions += self._published(image, shown, (height, width), url, made)
        made.row = self._record(image, url, (width, height), regions)
        return made

    def _phrase(self, image: PartImage) -> str:
        """What the whole image shows."""
        if not (self.settings.name_classes and image.labels):
            return image.super_class
        level = LEVELS.index(self.settings.aircraft_level) if len(image.labels) > 1 else 0
        return image.labels[level]

    def _look_at(self, image: PartImage) -> tuple[str, int, int]:
        """Address, width and height of an image; reads its file.

        Raises:
            BadValueError: why it cannot be used.
        """
        if image.fault:
            raise image.fault
        if image.file not in self.files.names:
            raise BadValueError(
                PartReason.IMAGE_MISSING, f"{self.files.address} has no {image.file}"
            )
        data = self.files.read(image.file)
        if image.md5 and hashlib.md5(data, usedforsecurity=False).hexdigest() != image.md5:
            raise BadValueError(
                PartReason.IMAGE_CHANGED, f"the MD5 of {image.file} is not {image.md5}"
            )
        try:
            width, height = image.size or read_size(data)
        except ImageError as error:
            raise BadValueError(error.reason, error.detail) from None
        return self.files.url(image.file, hashlib.sha256(data).hexdigest()), width, height

    def _mask(self, image: PartImage, width: int, height: int) -> tuple[Mask | None, str | None]:
        """The object's mask [H, W], or what is wrong with it; neither if the source has none."""
        if not image.segmentation:
            return None, None
        try:
            picture = open_image(self.files.read(image.segmentation)).convert("L")
        except ImageError as error:
            return None, f"{image.segmentation}: {error.reason}: {error.detail}"[:300]
        if picture.size != (width, height):
            size = f"{picture.width} x {picture.height}"
            return None, f"{image.segmentation} is {size}, the image {width} x {height}"
        return np.asarray(picture) >= MAJORITY, None

    def _regions(
        self,
        image: PartImage,
        shown: Box,
        mask: Mask | None,
        fault: str | None,
        url: str,
        made: Made,
    ) -> Iterator[Region]:
        """The parts as regions; the others are dropped."""
        for part, box in self._placed(image, shown, url, made):
            cut = cut_by_mask(box, mask) if box and mask is not None else None
            if box is None or (mask is not None and cut is None):
                detail = f"its point is {part.point}, the object's box {image.box}"
                self._drop(image, part, PartReason.PART_OFF_OBJECT, detail, url, made)
            elif cut is not None:
                tight, pixels = cut
                counts = encode_mask(pixels).counts
                yield Region(part.name, tight, FROM_POINT, counts, point=part.point)
            else:
                yield Region(part.name, box, FROM_POINT, None, fault, part.point)

    def _published(
        self, image: PartImage, shown: Box, size: tuple[int, int], url: str, made: Made
    ) -> Iterator[Region]:
        """The parts with boxes or masks of the source's own; others are dropped."""
        for part in filter(_is_published, image.parts):
            mask = own_mask(part.segmentation, *size, Counter())
            box = part.box
            if box is None and mask.counts is not None:
                x, y, width, height = box_of_mask(mask.counts, *size)
                box = (x, y, x + width, y + height)
            if box is None:
                detail = f"there is no box, and no mask to take it from: {mask.fault}"
                self._drop(image, part, ImportReason.BAD_BOX, detail, url, made)
            elif inside := intersection(box, shown):
                yield Region(part.name, inside, PUBLISHED, mask.counts, mask.fault)
            else:
                detail = f"{box} is not in {shown[2]:g} x {shown[3]:g} pixels"
                self._drop(image, part, PartReason.PART_OUTSIDE_IMAGE, detail, url, made)

    def _placed(
        self, image: PartImage, shown: Box, url: str, made: Made
    ) -> Iterator[tuple[Part, Box | None]]:
        """The parts that were seen in the photograph, with the boxes of their points."""
        seen = []
        for part in (part for part in image.parts if not _is_published(part)):
            if part.point is None:
                detail = "marked as not visible"
                self._drop(image, part, PartReason.PART_NOT_VISIBLE, detail, url, made)
            elif not (0 <= part.point[0] < shown[2] and 0 <= part.point[1] < shown[3]):
                detail = f"{part.point} is not in {shown[2]:g} x {shown[3]:g} pixels"
                self._drop(image, part, PartReason.PART_OUTSIDE_IMAGE, detail, url, made)
            else:
                seen.append(part)
        object_box = intersection(image.box, shown) if image.box else None
        points = [part.point for part in seen if part.point]
        if object_box is None:
            yield from ((part, None) for part in seen)
        else:
            yield from zip(
                seen, boxes_of_points(points, object_box, shown, self.settings.boxes), strict=True
            )

    def _record(
        self, image: PartImage, url: str, size: tuple[int, int], regions: Sequence[Region]
    ) -> Row:
        width, height = size
        caption, spans = caption_of([region.phrase for region in regions])
        if self.settings.name_attributes and image.attributes:
            caption += f". Annotators see: {', '.join(image.attributes)}."
        boxes = [
            [float(start), float(end), *_shares(region.box, width, height), 1.0]
            for region, (start, end) in zip(regions, spans, strict=True)
        ]
        return {
            "key": f"{self.source}/{image.id}",
            "id": self.number(image),
            "url": url,
            "caption": caption,
            "width": width,
            "height": height,
            "noun_chunks": boxes,
            "ref_exps": boxes,
            "masks": [region.counts for region in regions],
            "mask_faults": [region.fault for region in regions],
            "box_sources": [region.box_source for region in regions],
            "points": [
                region.point and [region.point[0] / width, region.point[1] / height]
                for region in regions
            ],
            "split": image.split or "train",
            "subset": image.super_class,
            "fault": "",
        }

    def number(self, image: PartImage) -> int:
        """The record's id: ids of different sources do not clash."""
        return record_number(f"{self.source}/{image.id}")

    def _drop_all(self, image: PartImage, error: BadValueError, made: Made) -> None:
        whole = Part(image.super_class, image.place)
        for part in (whole, *image.parts):
            self._drop(image, part, error.reason, error.detail, "", made)

    def _drop(
        self, image: PartImage, part: Part, reason: str, detail: str, url: str, made: Made
    ) -> None:
        row = {
            "region_id": f"{self.source}/{part.place}",
            "record_id": str(self.number(image)),
            "url": url or f"{self.files.address}/{image.file}",
            "phrase": part.name,
            "source": self.source,
            "image": image.file,
            "point": part.point,
            "box": part.box,
            "object_box": image.box,
        }
        made.dropped.append(quarantine_row(STEP, row, reason, f"{part.place}: {detail}"))


def left_out_row(source: str, address: str, place: str, reason: str, detail: str) -> Row:
    """A row of a table that cannot be used, in the quarantine's form."""
    row = {
        "region_id": f"{source}/{place}",
        "record_id": source,
        "url": address,
        "phrase": "",
        "source": source,
    }
    return quarantine_row(STEP, row, reason, f"{place}: {detail}")


def caption_of(phrases: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """A text that holds every phrase, `bird with back, beak and tail`, and where [start, end)."""
    text = phrases[0]
    first: dict[str, tuple[int, int]] = {text: (0, len(text))}
    others = [phrase for phrase in dict.fromkeys(phrases) if phrase not in first]
    for number, phrase in enumerate(others):
        joint = " with " if not number else " and " if number == len(others) - 1 else ", "
        first[phrase] = (len(text) + len(joint), len(text) + len(joint) + len(phrase))
        text += joint + phrase
    return text, [first[phrase] for phrase in phrases]


def _is_published(part: Part) -> bool:
    """Whether the source itself says how far the part reaches."""
    return part.box is not None or bool(part.segmentation)


def _shares(box: Box, width: int, height: int) -> Box:
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height
