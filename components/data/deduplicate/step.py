"""`pixclip deduplicate`: one of each image over all groups, boxes in pixels.

    pixclip deduplicate --records records --images images --candidates candidates \\
        --quarantine deduplicate.parquet

Two passes: the first holds a few bytes an image (hash columns in numpy), the second streams the
groups' region rows.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from components.core.counts import quarantine_row, region_counts, write_quarantine
from components.core.progress import progress
from components.core.step import In, Metrics, Out, StepSettings, step
from components.core.tables import Row, groups_of, part_name, read_rows, without, write_rows
from components.data.deduplicate.manifests import (
    GroupImages,
    ImageIndex,
    PlacementError,
    Positions,
    Reading,
    brought_upright,
    convention_of,
    count_votes,
    kept_images,
    read_group,
    read_index,
)
from data_contracts.candidates import SCHEMA
from data_contracts.reasons import DeduplicateReason
from pixclip.masks import Box, clip_box

# Turned with their photographs; and read as measured in stored or upright pixels, which their size
# did not tell.
TURNED_COUNTS = ("turned", "read_as_stored", "read_as_upright")


class DeduplicateSettings(StepSettings):
    """Settings of `deduplicate`; distances in bits, sides in pixels."""

    max_phash_distance: int = Field(
        4,
        description="largest distance of two near-duplicates' 64-bit perceptual hashes, in bits; "
        "-1 looks for equal bytes only",
        ge=-1,
        le=8,
    )
    min_box_side_px: float = Field(
        16, description="smallest short side of a box in the real image, in pixels", ge=1
    )
    turned_boxes: Literal["by_size", "stored", "upright"] = Field(
        "by_size",
        description="pixels that boxes of a photograph with an EXIF orientation are measured in "
        "where its declared size fits both ways; by_size asks the source's other photographs",
    )
    resized_images: Literal["web", "all", "none"] = Field(
        "web",
        description="whose images may be of another size than the source declares if their shape "
        "is the same: those of http(s) addresses, all, or none",
    )


@step(image="data", version=3)
def deduplicate(
    records: In, images: In, candidates: Out, quarantine: Out, settings: DeduplicateSettings
) -> Metrics:
    """Drop images that another image equals or nearly equals; bring boxes to pixels."""
    index = read_index(records, images)
    kept = kept_images(index, settings.max_phash_distance)
    counts, turned = Counter[str](), Counter[str]()
    judge = Judge(index, kept, settings, _reading(records, images, settings), turned)
    dropped = _write_groups(records, images, candidates, judge, counts)
    write_quarantine(quarantine, dropped)
    num_kept = counts.pop("", 0)
    return region_counts(
        num_kept + counts.total(),
        num_kept,
        counts,
        images=len(index),
        images_kept=int((kept == np.arange(len(index))).sum()),
        **{f"regions_{how}": turned[how] for how in TURNED_COUNTS},
    )


def _reading(records: Path, images: Path, settings: DeduplicateSettings) -> Reading:
    if settings.turned_boxes != "by_size":
        return Reading(settings.turned_boxes, settings.resized_images)
    votes = count_votes(records, images, settings.resized_images)
    return Reading(convention_of(votes), settings.resized_images)


@dataclass(frozen=True)
class Judge:
    """Decides on regions."""

    index: ImageIndex
    kept: Positions
    settings: DeduplicateSettings
    reading: Reading
    turned: Counter[str]

    def duplicate_of(self, position: int) -> tuple[str, str]:
        """Reason and detail if another image stands for this one, else two empty texts."""
        other = int(self.kept[position])
        if other == position:
            return "", ""
        name, own_name = (self.index.sha256[at].tobytes().hex() for at in (other, position))
        if name == own_name:
            return DeduplicateReason.DUPLICATE_IMAGE, f"the same bytes as kept image {name}"
        distance = np.bitwise_count(self.index.phash[other] ^ self.index.phash[position])
        return (
            DeduplicateReason.NEAR_DUPLICATE_IMAGE,
            f"{distance} of 64 hash bits from kept image {name}",
        )

    def candidate(self, row: Row, image: Row, position: int) -> Row | tuple[str, str]:
        """The candidate row of a region, or reason and detail why it is dropped."""
        reason, detail = self.duplicate_of(position)
        if reason:
            return reason, detail
        try:
            row = brought_upright(row, image, self.reading, self.turned)
        except PlacementError as error:
            return error.reason, error.detail
        width_px, height_px = image["width_px"], image["height_px"]
        placed = to_pixels(row, width_px, height_px, self.settings.min_box_side_px)
        if placed.reason:
            return placed.reason, placed.detail
        return {
            **without(row, ("box_norm", "point_norm", "clip_similarity", "declared_size")),
            "point_xy": row["point_norm"]
            and [row["point_norm"][0] * width_px, row["point_norm"][1] * height_px],
            "image_sha256": image["sha256"],
            "image_shard": image["shard"],
            "image_width_px": width_px,
            "image_height_px": height_px,
            "image_phash": image["phash"],
            "box_xyxy": list(placed.box_xyxy),
        }


def _write_groups(
    records: Path, images: Path, candidates: Path, judge: Judge, counts: Counter[str]
) -> Iterator[Row]:
    """Write every group's candidates; gives the quarantine's rows on the way.

    Counts each region by its reason, "" for one that goes on.
    """
    first = 0
    groups = groups_of(records)
    with progress("deduplicate", total=len(groups), unit="group") as bar:
        for group in groups:
            found = read_group(images / group)
            good: list[Row] = []
            yield from _judge_group(records / group, found, first, judge, good, counts)
            write_rows(candidates / group / part_name(0), good, SCHEMA)
            first += len(found.ok)
            bar.update()


def _judge_group(
    records: Path,
    images: GroupImages,
    first: int,
    judge: Judge,
    good: list[Row],
    counts: Counter[str],
) -> Iterator[Row]:
    """Sort a group's regions: candidates into `good`, the others are given as quarantine rows."""
    for row in read_rows(records):
        offset = images.position_of(row["url"])
        if offset is None:
            continue  # its image is lost, and ingest has quarantined it
        image = images.ok[offset]
        result = judge.candidate(row, image, first + offset)
        if isinstance(result, dict):
            good.append(result)
            counts[""] += 1
            continue
        reason, detail = result
        counts[reason] += 1
        with_image = {**row, "image_sha256": image["sha256"]}
        yield quarantine_row("deduplicate", with_image, reason, detail)


@dataclass(frozen=True)
class PixelBox:
    """A box in pixels of the upright image, or the reason why there is none."""

    box_xyxy: Box = (0.0, 0.0, 0.0, 0.0)
    reason: str = ""
    detail: str = ""


def to_pixels(row: Row, width_px: int, height_px: int, min_box_side_px: float) -> PixelBox:
    """The clipped pixel box of a record's region.

    A source mask of another size than the upright image is refused, never scaled.
    """
    if row["mask_counts"] is not None and row["mask_size"] != [height_px, width_px]:
        detail = f"mask {row['mask_size']}, image {[height_px, width_px]} (height, width)"
        return PixelBox(reason=DeduplicateReason.MASK_SIZE_MISMATCH, detail=detail)
    x1, y1, x2, y2 = row["box_norm"]
    scaled = (x1 * width_px, y1 * height_px, x2 * width_px, y2 * height_px)
    box = clip_box(scaled, height_px, width_px)
    short_px = min(box[2] - box[0], box[3] - box[1])
    if not short_px >= min_box_side_px:  # so that NaN fails too
        detail = f"short side {short_px:.1f} pixels, below {min_box_side_px:g}"
        return PixelBox(reason=DeduplicateReason.TINY_BOX, detail=detail)
    return PixelBox(box)
