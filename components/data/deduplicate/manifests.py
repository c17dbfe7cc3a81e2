"""Read the groups' image manifests: rows for one group, hash columns for all."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.core.errors import InputError
from components.core.tables import Row, groups_of, read_batches, read_rows
from components.data.deduplicate.turning import Resized, pixels_of
from pixclip.data.layout import BENCHMARK
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
