"""The plan of the data set: every image with its split, shard, and place in the source's tars."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.kernel.errors import InputError
from components.kernel.shards import members_of
from components.kernel.tables import groups_of, read_batches
from components.pack.splits import SPLITS, ImageEntry, SplitRule, assign_splits, shuffle_rank

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
