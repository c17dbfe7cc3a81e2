"""The plan of the data set: every image with its split, shard, and place in the source's tars."""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import InputError
from components.core.progress import progress
from components.core.shards import members_of
from components.core.tables import Row, groups_of, read_batches
from components.data.pack.splits import SPLITS, ImageEntry, SplitRule, assign_splits, shuffle_rank

INDEX_COLUMNS = ("image_sha256", "image_phash", "split")


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write: its images in their order."""

    split: str
    index: int
    image_ids: tuple[str, ...]

    @property
    def name(self) -> str:
        """The tar's path inside the data set."""
        return f"{self.split}/{self.index:05d}.tar"


def plan_shards(captions: Path, rule: SplitRule, images_per_shard: int) -> list[ShardPlan]:
    """All shards, splits in order, images shuffled inside a split by the seed.

    Raises:
        InputError: there is nothing to pack, or an image is marked for two splits.
        GateError: a training image looks like one of the benchmark.
    """
    entries = index_images(captions)
    splits = assign_splits(list(entries.values()), rule)
    members: dict[str, list[str]] = {split: [] for split in SPLITS}
    for image_id, split in splits.items():
        members[split].append(image_id)
    return [
        ShardPlan(split, index, tuple(ordered[start : start + images_per_shard]))
        for split in SPLITS
        for ordered in [sorted(members[split], key=lambda i: shuffle_rank(rule.seed, "order", i))]
        for index, start in enumerate(range(0, len(ordered), images_per_shard))
    ]


def index_images(captions: Path) -> dict[str, ImageEntry]:
    """Every image of the captions, in the order of the table."""
    entries: dict[str, ImageEntry] = {}
    for batch in read_batches(captions, INDEX_COLUMNS):
        columns = (batch.column(name).to_pylist() for name in INDEX_COLUMNS)
        for sha256, phash, marked in zip(*columns, strict=True):
            entry = entries.setdefault(sha256, ImageEntry(sha256, int(phash, 16), marked))
            if entry.marked != marked:
                raise InputError(
                    f"captions: regions of image {sha256} are marked for two splits, "
                    f"{entry.marked!r} and {marked!r}"
                )
            entry.num_regions += 1
    if not entries:
        raise InputError(f"{captions} holds no region to pack; see the quarantine for the reasons")
    return entries


class ImageStore:
    """Encoded images of all groups, read at random without unpacking their tars."""

    def __init__(self, images: Path, wanted: set[str]) -> None:
        """Note where every wanted image begins; one pass over the tars' headers."""
        self._places = {
            sha256: (tar, offset, size)
            for group in groups_of(images)
            for tar in sorted((images / group).glob("*.tar"))
            for sha256, offset, size in _images(tar)
            if sha256 in wanted
        }

    def read(self, sha256: str) -> bytes:
        """The JPEG of an image.

        Raises:
            InputError: no group holds it.
        """
        if sha256 not in self._places:
            raise InputError(f"images hold no {sha256}.jpg, though captions speak of it")
        tar, offset, size = self._places[sha256]
        with tar.open("rb") as file:
            file.seek(offset)
            return file.read(size)


def _images(tar: Path) -> Iterator[tuple[str, int, int]]:
    for member in members_of(tar):
        if member.name.endswith(".jpg"):
            yield member.name.removesuffix(".jpg"), member.offset, member.size


DONE_NAME = "done"


def fill_buckets(captions: Path, plan: Sequence[ShardPlan], folder: Path) -> None:
    """Write every caption row to its shard's bucket; whole buckets of a killed run are kept."""
    if (folder / DONE_NAME).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shard_of = {image_id: shard.name for shard in plan for image_id in shard.image_ids}
    with progress("pack: sort regions by shard") as bar:
        for batch in read_batches(captions):
            _append(batch.to_pylist(), shard_of, folder)
            bar.update(batch.num_rows)
    (folder / DONE_NAME).touch()


def _append(rows: Sequence[Row], shard_of: Mapping[str, str], folder: Path) -> None:
    lines: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        lines[shard_of[row["image_sha256"]]].append(json.dumps(row) + "\n")
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
