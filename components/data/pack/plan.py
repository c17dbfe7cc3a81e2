"""The plan of the data set: every image with its split and its shard."""

import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.core.progress import progress
from components.core.tables import Row, read_batches
from components.data.pack.images import (
    Digests,
    Indices,
    digests_of,
    find_digests,
    hex_of,
    read_images,
)
from components.data.pack.splits import SplitRule, assign_splits, shuffle_ranks
from pixclip.data.layout import SPLITS, shard_name


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
