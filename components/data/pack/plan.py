"""The plan of the data set: every image with its split and its shard.

A split is the source's mark or a seeded hash of the image. Caption rows are sorted by shard on
disk, because those of a whole data set do not fit into memory.
"""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.core.digests import sha256_text
from components.core.errors import GateError
from components.core.progress import progress
from components.core.tables import Row, read_batches
from components.data.pack.images import (
    DIGEST_BYTES,
    Digests,
    ImageTable,
    Indices,
    digests_of,
    find_digests,
    hex_of,
    read_images,
)
from pixclip.data.layout import BENCHMARK, SPLITS, TRAIN, VAL, shard_name
from pixclip.near_duplicates import near_duplicate_clusters


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write."""

    split: str
    index: int
    digests: Digests  # of its images, in their order

    @property
    def name(self) -> str:
        """The tar's path inside the data set."""
        return f"{self.split}/{shard_name(self.index)}"

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Its images in their order."""
        return tuple(hex_of(self.digests))


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How undecided images are divided."""

    seed: int
    val_share: float
    benchmark_regions: int
    benchmark_max_share: float
    near_duplicate_distance: int


def plan_shards(captions: Path, rule: SplitRule, images_per_shard: int) -> list[ShardPlan]:
    """All shards, splits in order, images shuffled inside a split by the seed.

    Raises:
        InputError: there is nothing to pack, or an image is marked for two splits.
        GateError: a training image looks like one of the benchmark.
    """
    images = read_images(captions)
    splits = assign_splits(images, rule)
    shards = []
    for number, split in enumerate(SPLITS):
        members = images.digests[splits == number]
        members = members[np.argsort(shuffle_ranks(rule.seed, "order", members))]
        shards += [
            ShardPlan(split, index, members[start : start + images_per_shard])
            for index, start in enumerate(range(0, len(members), images_per_shard))
        ]
    return shards


class ShardIndex:
    """Which shard of a plan an image is in."""

    def __init__(self, plan: Sequence[ShardPlan]) -> None:
        digests = np.concatenate([shard.digests for shard in plan])
        order = np.argsort(digests)
        numbers = np.repeat(np.arange(len(plan), dtype=np.int32), [len(s.digests) for s in plan])
        self._digests, self._numbers = digests[order], numbers[order]

    def numbers(self, digests: Digests) -> Indices:
        """The number in the plan of each image's shard."""
        places = find_digests(self._digests, digests)
        assert (places >= 0).all(), "the plan lacks an image of the captions"
        return self._numbers[places].astype(np.int64)


DONE_NAME = "done"


def fill_buckets(captions: Path, plan: Sequence[ShardPlan], folder: Path) -> None:
    """Write every caption row to its shard's bucket; whole buckets of a killed run are kept."""
    if (folder / DONE_NAME).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    index = ShardIndex(plan)
    with progress("pack: sort regions by shard") as bar:
        for batch in read_batches(captions):
            rows = batch.to_pylist()
            numbers = index.numbers(digests_of(row["image_sha256"] for row in rows))
            _append(rows, [plan[number].name for number in numbers.tolist()], folder)
            bar.update(batch.num_rows)
    (folder / DONE_NAME).touch()


def _append(rows: Sequence[Row], shards: Sequence[str], folder: Path) -> None:
    lines: dict[str, list[str]] = defaultdict(list)
    for row, shard in zip(rows, shards, strict=True):
        lines[shard].append(json.dumps(row) + "\n")
    for shard, texts in lines.items():
        with _bucket_path(folder, shard).open("a", encoding="utf-8") as file:
            file.writelines(texts)


def read_bucket(folder: Path, shard: ShardPlan) -> dict[str, list[Row]]:
    """The rows of a shard by image, each image's regions in their order."""
    images: dict[str, list[Row]] = {image_id: [] for image_id in shard.image_ids}
    with _bucket_path(folder, shard.name).open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            images[row["image_sha256"]].append(row)
    for rows in images.values():
        rows.sort(key=lambda row: str(row["region_id"]))
    return images


def _bucket_path(folder: Path, shard: str) -> Path:
    return folder / f"{shard.replace('/', '-')}.jsonl"


def assign_splits(images: ImageTable, rule: SplitRule) -> npt.NDArray[np.int8]:
    """The split of every image, as its place in `SPLITS`; images that look alike share one.

    An image whose look-alike is marked for the benchmark joins it. If the source marks no
    benchmark, whole clusters of undecided images are drawn for it.

    Raises:
        GateError: a training image looks like one of the benchmark.
    """
    # The smallest image id of a cluster leads it: images are in the order of their ids.
    leaders = near_duplicate_clusters(images.phash, rule.near_duplicate_distance)
    is_train, is_benchmark = (images.marked == split.encode() for split in (TRAIN, BENCHMARK))
    has_train, has_benchmark = np.zeros((2, len(images)), dtype=bool)  # of a leader's cluster
    has_train[leaders[is_train]] = has_benchmark[leaders[is_benchmark]] = True
    _require_separate_benchmark(int((is_train & has_benchmark[leaders]).sum()))
    is_leader = leaders == np.arange(len(images))
    if not is_benchmark.any():
        undecided = np.flatnonzero(is_leader & ~has_train)
        sizes = np.zeros(len(images), dtype=np.int64)
        np.add.at(sizes, leaders, images.num_regions)
        drawn = _draw_benchmark(images.digests[undecided], sizes[undecided], rule)
        has_benchmark[undecided[drawn]] = True
    splits = np.where(has_benchmark, SPLITS.index(BENCHMARK), SPLITS.index(TRAIN)).astype(np.int8)
    others = np.flatnonzero(is_leader & ~has_benchmark)
    splits[others[_is_val(images.digests[others], rule)]] = SPLITS.index(VAL)
    return splits[leaders]


def shuffle_rank(seed: int, purpose: str, sha256: str) -> str:
    """A key that sorts images into an order which looks random and is always the same."""
    return sha256_text(f"{purpose}:{seed}:{sha256}")


def shuffle_ranks(seed: int, purpose: str, digests: Digests) -> Digests:
    """The keys of many images, as bytes, which sort like the texts."""
    return digests_of(
        shuffle_rank(seed, purpose, name)
        for start in range(0, len(digests), 4096)
        for name in hex_of(digests[start : start + 4096])
    )


def _require_separate_benchmark(num_leaks: int) -> None:
    if num_leaks:
        raise GateError(
            f"pack: {num_leaks} training image(s) look like images of the benchmark",
            Counter({"train_image_looks_like_benchmark": num_leaks}),
            "Run deduplicate with a distance of at least pack.near_duplicate_distance",
        )


def _draw_benchmark(leaders: Digests, sizes: Indices, rule: SplitRule) -> Indices:
    """The places of the clusters that are drawn, of sizes in regions."""
    budget = min(rule.benchmark_regions, int(rule.benchmark_max_share * int(sizes.sum())))
    drawn = []
    for place in np.argsort(shuffle_ranks(rule.seed, BENCHMARK, leaders)):
        if sizes[place] <= budget:
            drawn.append(place)
            budget -= int(sizes[place])
    return np.array(drawn, dtype=np.int64)


def _is_val(leaders: Digests, rule: SplitRule) -> npt.NDArray[np.bool_]:
    ranks = shuffle_ranks(rule.seed, VAL, leaders)
    first_bits = ranks.view(">u8").reshape(-1, DIGEST_BYTES // 8)[:, 0] >> np.uint64(16)
    return np.asarray(first_bits / 2**48 < rule.val_share)
