"""Read the groups' image manifests: rows for one group, hash columns for all."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from components.deduplicate.duplicates import SHA256_BYTES, ImageIndex
from components.deduplicate.turning import Resized, pixels_of
from components.kernel.errors import InputError
from components.kernel.tables import Row, groups_of, read_batches, read_rows

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
BENCHMARK = "benchmark"


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
