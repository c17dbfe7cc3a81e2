"""The groups' image manifests: rows for one group, hash columns for all.

With them it is decided which images stay (benchmark images before others, then the first in order),
and in which pixels of the picture a record measures.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from components.core.errors import InputError
from components.core.tables import Row, groups_of, read_batches, read_rows
from data_contracts.reasons import DeduplicateReason
from pixclip.data.layout import BENCHMARK
from pixclip.masks import Box, Rle, decode_mask, encode_mask, turn_box, turn_mask
from pixclip.near_duplicates import Hashes, first_of_near_duplicates

COLUMNS = (
    "url",
    "status",
    "sha256",
    "shard",
    "width_px",
    "height_px",
    "phash",
    "stored_width",
    "stored_height",
    "orientation",
)


@dataclass(frozen=True)
class GroupImages:
    """The images of one group."""

    folder: Path
    ok: list[Row]  # manifest rows of usable images, in order
    lost_urls: frozenset[str]

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {row["url"]: position for position, row in enumerate(self.ok)}

    def position_of(self, url: str) -> int | None:
        """Where among the usable images a URL's image is; None if it is lost.

        Raises:
            InputError: the group's manifest does not know the URL.
        """
        position = self._positions.get(url)
        if position is None and url not in self.lost_urls:
            raise InputError(
                f"{self.folder} knows nothing of {url}; run ingest on the records of this group"
            )
        return position


def read_group(images: Path) -> GroupImages:
    """The images of one group.

    Raises:
        InputError: there is no manifest.
    """
    rows = list(read_rows(images, COLUMNS))
    lost = frozenset(row["url"] for row in rows if row["status"] != "ok")
    return GroupImages(images, [row for row in rows if row["status"] == "ok"], lost)


Resized = Literal["web", "all", "none"]


def count_votes(records: Path, images: Path, resized: Resized) -> Counter[str]:
    """The photographs of all groups that EXIF turns, by what their declared size is of."""
    votes: Counter[str] = Counter()
    for group in groups_of(records):
        turned = {r["url"]: r for r in read_group(images / group).ok if r["orientation"] > 1}
        if not turned:
            continue
        declared = {
            row["url"]: row["declared_size"]
            for row in read_rows(records / group, ["url", "declared_size"])
            if row["url"] in turned
        }
        votes.update(pixels_of(size, turned[url], url, resized) for url, size in declared.items())
    return votes


@dataclass(frozen=True)
class ImageIndex:
    """Every usable image of all groups, in order, as columns: 41 bytes an image."""

    sha256: npt.NDArray[np.void]  # [N] of 32 bytes
    phash: Hashes  # [N]
    is_benchmark: npt.NDArray[np.bool_]  # [N]

    def __len__(self) -> int:
        return len(self.phash)


def read_index(records: Path, images: Path) -> ImageIndex:
    """The hash columns of all groups' usable images, in order."""
    hashes, fingerprints, marks = [], [], []
    for group in groups_of(records):
        found = read_group(images / group)
        benchmark_urls = _benchmark_urls(records / group)
        hashes.append(b"".join(bytes.fromhex(row["sha256"]) for row in found.ok))
        fingerprints.append(np.array([int(row["phash"], 16) for row in found.ok], dtype=np.uint64))
        marks.append(np.array([row["url"] in benchmark_urls for row in found.ok], dtype=bool))
    return ImageIndex(
        sha256=np.frombuffer(b"".join(hashes), dtype=f"V{SHA256_BYTES}"),
        phash=np.concatenate(fingerprints) if fingerprints else np.empty(0, dtype=np.uint64),
        is_benchmark=np.concatenate(marks) if marks else np.empty(0, dtype=bool),
    )


def _benchmark_urls(records: Path) -> frozenset[str]:
    return frozenset(
        url
        for batch in read_batches(records, ["url", "split"])
        for url, split in zip(*(column.to_pylist() for column in batch.columns), strict=True)
        if split == BENCHMARK
    )


SHA256_BYTES = 32
Positions = npt.NDArray[np.int64]


def kept_images(images: ImageIndex, max_phash_distance: int) -> Positions:
    """For every image the position of the image that stands for it; itself, if it stays.

    Whatever is dropped lies within the distance of the image that stands for it, and no two
    images that stay lie within it.
    """
    # A benchmark image stays even if its twin came first: leakage must not shrink a benchmark.
    rank = np.argsort(~images.is_benchmark, kind="stable")
    if max_phash_distance < 0:
        return _first_of_equals(images.sha256, rank)
    firsts = _first_of_equals(images.phash, rank)
    if max_phash_distance == 0:
        return firsts
    distinct = rank[firsts[rank] == rank]  # in the order of preference
    stands_for = first_of_near_duplicates(images.phash[distinct], max_phash_distance)
    replacement = np.arange(len(images))
    replacement[distinct] = distinct[stands_for]
    return replacement[firsts]


def _first_of_equals(values: npt.NDArray[np.generic], rank: Positions) -> Positions:
    """For every value the position of its most preferred equal."""
    _, first, inverse = np.unique(values[rank], return_index=True, return_inverse=True)
    firsts = np.empty(len(values), dtype=np.int64)
    firsts[rank] = rank[first[inverse]]
    return firsts


STORED, UPRIGHT, EITHER, NEITHER = "stored", "upright", "either", "neither"
AGREEMENT = 0.9  # of the photographs that tell, before the others are read like them
Convention = Literal["", "stored", "upright"]


# Whether a record speaks of the picture that arrived, and in which pixels it measures.
#
# Some tools measure boxes in a photograph as it is stored, others as people see it, turned by its
# EXIF orientation. The declared size tells, unless the picture is a square, or is turned by half or
# mirrored only: then the other photographs of the source tell, and if they do not, the settings.
#
# The size of an image of one's own (`file://`, `s3://`) must be the declared one. A host of the web
# may serve another size of the same picture, so there the aspect ratio must be: within what
# rounding both sides to whole pixels can make of it. `deduplicate.resized_images` decides it for
# other sources.


@dataclass(frozen=True)
class Reading:
    """How a source is read where sizes do not tell everything."""

    convention: Convention = ""  # of photographs whose size fits the stored and the upright pixels
    resized: Resized = "web"  # whose images may be of another size and the same shape


class PlacementError(ValueError):
    """A region that cannot be brought to its image; `reason` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def pixels_of(
    declared: Sequence[int] | None, image: Row, url: str, resized: Resized = "web"
) -> str:
    """Which pixels of an image a declared [height, width] is of: a word of this module."""
    upright, stored = (image["width_px"], image["height_px"]), stored_size(image)
    if declared is None:  # the source says nothing that could be compared
        return EITHER if image["orientation"] > 1 else UPRIGHT
    size = (declared[1], declared[0])
    is_upright, is_stored = (size == upright), (size == stored)
    may_be_resized = resized == "all" or (resized == "web" and url.startswith("http"))
    if not (is_upright or is_stored) and may_be_resized:
        is_upright, is_stored = (has_shape(size, other) for other in (upright, stored))
    if is_upright and is_stored:
        return EITHER if image["orientation"] > 1 else UPRIGHT
    return UPRIGHT if is_upright else STORED if is_stored else NEITHER


def stored_size(image: Row) -> tuple[int, int]:
    """Width and height of an image as its file holds it."""
    return image["stored_width"], image["stored_height"]


def has_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one size can be the other scaled, each side rounded to a whole pixel."""
    (width, height), (other_width, other_height) = size, other
    if min(*size, *other) < 1:
        return False
    # The smaller of the two was rounded: by up to a pixel, whichever way its maker rounds.
    larger = max(size, other)
    return abs(width * other_height - height * other_width) <= larger[0] + larger[1]


def convention_of(votes: Mapping[str, int]) -> Convention:
    """How the photographs of a source that tell it are measured; "" if they disagree or none."""
    stored, upright = votes.get(STORED, 0), votes.get(UPRIGHT, 0)
    if stored > 0 and stored >= AGREEMENT * (stored + upright):
        return "stored"
    if upright > 0 and upright >= AGREEMENT * (stored + upright):
        return "upright"
    return ""


def brought_upright(row: Row, image: Row, reading: Reading, counts: Counter[str]) -> Row:
    """The row with its box and its mask in the upright image; counts what was turned.

    Raises:
        PlacementError: the row is of another picture, nobody knows which way it lies, or its mask
            cannot be turned.
    """
    pixels = pixels_of(row["declared_size"], image, row["url"], reading.resized)
    if pixels == NEITHER:
        raise PlacementError(DeduplicateReason.IMAGE_SIZE_MISMATCH, _both_sizes(row, image))
    if pixels == EITHER:
        if not reading.convention:
            raise PlacementError(
                DeduplicateReason.ORIENTATION_UNDECIDED,
                f"EXIF orientation {image['orientation']}, and the declared size "
                f"{_size_text(row)} fits the stored and the upright picture; say by "
                "deduplicate.turned_boxes which one the source's boxes are measured in",
            )
        pixels = reading.convention
        counts[f"read_as_{pixels}"] += 1
    if pixels == UPRIGHT or image["orientation"] == 1:
        return row
    counts["turned"] += 1
    return _turned(row, image["orientation"])


def _turned(row: Row, orientation: int) -> Row:
    x1, y1, x2, y2 = row["box_norm"]
    box: Box = turn_box((x1, y1, x2, y2), orientation)
    turned = {**row, "box_norm": list(box)}
    if row["point_norm"]:
        x, y = row["point_norm"]
        turned["point_norm"] = list(turn_box((x, y, x, y), orientation)[:2])
    if row["mask_counts"] is None:
        return turned
    try:
        height_px, width_px = row["mask_size"]
        mask = decode_mask(Rle(height_px, width_px, row["mask_counts"]))
    except (ValueError, TypeError) as error:
        raise PlacementError(DeduplicateReason.MASK_DAMAGED, str(error)) from None
    upright = encode_mask(turn_mask(mask, orientation))
    size = [upright.height_px, upright.width_px]
    return turned | {"mask_counts": upright.counts, "mask_size": size}


def _both_sizes(row: Row, image: Row) -> str:
    width, height = stored_size(image)
    stored = f" (stored as {width} x {height})" if image["orientation"] > 1 else ""
    may_be_resized = pixels_of(row["declared_size"], image, row["url"], "all") != NEITHER
    advice = "; deduplicate.resized_images=all lets it in" if may_be_resized else ""
    return (
        f"declared {_size_text(row)}, but the image is {image['width_px']} x "
        f"{image['height_px']}{stored}: another picture, or resized after it was annotated{advice}"
    )


def _size_text(row: Row) -> str:
    declared = row["declared_size"]
    return f"{declared[1]} x {declared[0]}" if declared else "(none)"
