"""Which image goes to which split: by the source's mark, else by a seeded hash of the image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.core.digests import sha256_text
from components.core.errors import GateError
from pixclip.near_duplicates import near_duplicate_clusters

TRAIN, VAL, BENCHMARK = SPLITS = ("train", "val", "benchmark")


@dataclass(slots=True)
class ImageEntry:
    """What the splits need to know of an image."""

    sha256: str
    phash: int  # 64-bit perceptual hash
    marked: str  # the source's split: "train", "benchmark" or "" (undecided)
    num_regions: int = 0


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How undecided images are divided."""

    seed: int
    val_share: float
    benchmark_regions: int
    benchmark_max_share: float
    near_duplicate_distance: int


def assign_splits(entries: Sequence[ImageEntry], rule: SplitRule) -> dict[str, str]:
    """The split of every image; images that look alike share one.

    An image whose look-alike is marked for the benchmark joins it. If the source marks no
    benchmark, whole clusters of undecided images are drawn for it.

    Raises:
        GateError: a training image looks like one of the benchmark.
    """
    clusters = _clusters(entries, rule.near_duplicate_distance)
    _require_separate_benchmark(clusters)
    marked = {
        leader: _mark([entry.marked for entry in cluster]) for leader, cluster in clusters.items()
    }
    drawn = set() if BENCHMARK in marked.values() else _draw_benchmark(clusters, marked, rule)
    splits = {}
    for leader, cluster in clusters.items():
        is_benchmark = marked[leader] == BENCHMARK or leader in drawn
        split = BENCHMARK if is_benchmark else _train_or_val(leader, rule)
        splits.update({entry.sha256: split for entry in cluster})
    return splits


def shuffle_rank(seed: int, purpose: str, sha256: str) -> str:
    """A key that sorts images into an order which looks random and is always the same."""
    return sha256_text(f"{purpose}:{seed}:{sha256}")


def _clusters(entries: Sequence[ImageEntry], distance: int) -> dict[str, list[ImageEntry]]:
    """Clusters of look-alikes by their leader, the smallest image id among them."""
    hashes = np.array([entry.phash for entry in entries], dtype=np.uint64)
    members: dict[int, list[ImageEntry]] = {}
    for entry, label in zip(entries, near_duplicate_clusters(hashes, distance), strict=True):
        members.setdefault(int(label), []).append(entry)
    return {min(entry.sha256 for entry in cluster): cluster for cluster in members.values()}


def _mark(marks: Sequence[str]) -> str:
    for split in (BENCHMARK, TRAIN):
        if split in marks:
            return split
    return ""


def _require_separate_benchmark(clusters: Mapping[str, Sequence[ImageEntry]]) -> None:
    leaks = Counter[str]()
    for cluster in clusters.values():
        marks = Counter(entry.marked for entry in cluster)
        if marks[BENCHMARK]:
            leaks["train_image_looks_like_benchmark"] += marks[TRAIN]
    if leaks.total():
        raise GateError(
            f"pack: {leaks.total()} training image(s) look like images of the benchmark",
            leaks,
            "Run deduplicate with a distance of at least pack.near_duplicate_distance",
        )


def _draw_benchmark(
    clusters: Mapping[str, Sequence[ImageEntry]], marked: Mapping[str, str], rule: SplitRule
) -> set[str]:
    sizes = {
        leader: sum(entry.num_regions for entry in cluster)
        for leader, cluster in clusters.items()
        if not marked[leader]
    }
    budget = min(rule.benchmark_regions, int(rule.benchmark_max_share * sum(sizes.values())))
    drawn = set()
    for leader in sorted(sizes, key=lambda leader: shuffle_rank(rule.seed, BENCHMARK, leader)):
        if sizes[leader] <= budget:
            drawn.add(leader)
            budget -= sizes[leader]
    return drawn


def _train_or_val(leader: str, rule: SplitRule) -> str:
    draw = int(shuffle_rank(rule.seed, VAL, leader)[:12], 16) / 16**12
    return VAL if draw < rule.val_share else TRAIN
