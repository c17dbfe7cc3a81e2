"""The order of an epoch: a pure function of the seed and the epoch, computed a window at a time.

With it the index of a split's images, a few bytes each, and what a region becomes in an epoch:
drawn from seed, epoch and region, never from a worker.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pixclip.data.config import DataConfig, ReadConfig
from pixclip.data.errors import DataError
from pixclip.data.samples import Region, Sample
from pixclip.data.shards import key_hashes, open_manifest
from pixclip.data.store import Store

# Legend: r = rows (regions) of a window, W = windows.
Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]  # image, and region inside the image


@dataclass(frozen=True)
class ImageIndex:
    """Where every image of a split is, and how many regions it has: 14 bytes an image."""

    shards: tuple[str, ...]
    shard_I: npt.NDArray[np.int32]  # index into `shards`, ascending
    key_hash_I: npt.NDArray[np.uint64]
    num_regions_I: npt.NDArray[np.uint16]

    @property
    def num_regions(self) -> int:
        """Regions of the split."""
        return int(self.num_regions_I.sum(dtype=np.int64))

    def by_image(self) -> "ImageIndex":
        """The index of an order of images: each of them once, whatever its regions."""
        return replace(self, num_regions_I=np.ones_like(self.num_regions_I))


class EpochOrder:
    """Regions in the order of training.

    The shards are shuffled, and the regions of `shuffle_shards` neighbours together: a worker
    reads from few shards at a time. Up to `per_image` regions of an image stay together. With
    `per_epoch`, so many regions of an image at most are in an epoch; others in the next.
    Where a window starts follows from the number of its regions, so nothing before a row need be
    computed, let alone read.
    """

    def __init__(
        self, index: ImageIndex, config: ReadConfig, per_image: int = 1, per_epoch: int = 0
    ) -> None:
        self._index, self._config, self._per_image = index, config, per_image
        self._per_epoch = per_epoch or np.iinfo(np.uint16).max
        num_shards = len(index.shards)
        self._first_image = np.searchsorted(index.shard_I, np.arange(num_shards + 1))
        rows_I = np.minimum(index.num_regions_I, self._per_epoch)
        ends = np.concatenate([[0], np.cumsum(rows_I, dtype=np.int64)])
        self.num_rows = int(ends[-1])  # of an epoch
        self._shard_regions = np.diff(ends[self._first_image])
        self._windows = lru_cache(maxsize=4)(self._shuffle_shards)
        self._rows = lru_cache(maxsize=2)(self._shuffle_window)

    def rows(self, epoch: int, start: int, stop: int) -> Rows:
        """The rows from `start` to `stop` of an epoch."""
        parts = list(self._overlapping(epoch, start, stop))
        images, regions = (np.concatenate(column) for column in zip(*parts, strict=True))
        return images, regions

    def _overlapping(self, epoch: int, start: int, stop: int) -> Iterator[Rows]:
        _, starts_W = self._windows(epoch)
        first = int(np.searchsorted(starts_W, start, side="right")) - 1
        for window in range(first, len(starts_W) - 1):
            offset = int(starts_W[window])
            if offset >= stop:
                return
            images, regions = self._rows(epoch, window)
            part = slice(max(0, start - offset), stop - offset)
            yield images[part], regions[part]

    def _shuffle_shards(self, epoch: int) -> Rows:
        """The shards in their order, and the first row of every window and the end."""
        shards = np.random.default_rng([self._config.seed, epoch]).permutation(
            len(self._index.shards)
        )
        per_window = np.add.reduceat(
            self._shard_regions[shards], np.arange(0, len(shards), self._config.shuffle_shards)
        )
        return shards, np.concatenate([[0], np.cumsum(per_window)])

    def _shuffle_window(self, epoch: int, window: int) -> Rows:
        size = self._config.shuffle_shards
        shards = self._windows(epoch)[0][window * size : (window + 1) * size]
        images = np.concatenate(
            [np.arange(self._first_image[s], self._first_image[s + 1]) for s in shards]
        )
        counts = self._index.num_regions_I[images].astype(np.int64)
        rng = np.random.default_rng([self._config.seed, epoch, window + 1])
        image_r = np.repeat(np.arange(len(images)), counts)
        place_r = np.arange(len(image_r)) - np.repeat(np.cumsum(counts) - counts, counts)
        # Which regions of an image come together changes with the epoch.
        region_r = place_r[np.lexsort((rng.random(len(image_r)), image_r))]
        is_first_r = place_r < self._per_epoch
        image_r, place_r, region_r = image_r[is_first_r], place_r[is_first_r], region_r[is_first_r]
        group_r = np.cumsum(place_r % self._per_image == 0) - 1
        order_r = np.argsort(rng.random(group_r[-1] + 1)[group_r], kind="stable")
        return images[image_r[order_r]], region_r[order_r]


# Legend: I = images of the split, in the order of their shards.
COLUMNS = ["split", "shard", "key"]


def read_index(store: Store, split: str) -> ImageIndex:
    """The index of a split, read from the manifest a part at a time.

    Raises:
        DataError: the manifest is missing or has no such split.
    """
    shards: dict[str, int] = {}
    hashes, shard_numbers = [], []
    with open_manifest(store) as file:
        for names, keys in _chunks(file, split):
            if names.null_count or keys.null_count:
                raise DataError(f"the manifest of {store.uri} has a row without shard or key")
            known = [shards.setdefault(name, len(shards)) for name in names.dictionary.to_pylist()]
            shard_numbers.append(np.array(known, dtype=np.int32)[names.indices.to_numpy()])
            hashes.append(key_hashes(np.array([key.encode() for key in keys.to_pylist()])))
    if not hashes:
        raise DataError(f"the manifest of {store.uri} has no split '{split}'")
    return _index(tuple(shards), np.concatenate(shard_numbers), np.concatenate(hashes))


def _chunks(file: BinaryIO, split: str) -> Iterator[tuple[pa.DictionaryArray, pa.StringArray]]:
    """Shard and key of the split's rows."""
    for batch in pq.ParquetFile(file, read_dictionary=["shard"]).iter_batches(columns=COLUMNS):
        here = batch.filter(pc.equal(batch["split"], split))
        if here.num_rows:
            yield here["shard"], here["key"]


def _index(
    shards: tuple[str, ...], shard_r: npt.NDArray[np.int32], hash_r: npt.NDArray[np.uint64]
) -> ImageIndex:
    """Rows (r) of one image are neighbours in the manifest; they become one entry."""
    is_first = np.ones(len(hash_r), dtype=bool)
    is_first[1:] = (hash_r[1:] != hash_r[:-1]) | (shard_r[1:] != shard_r[:-1])
    first = np.flatnonzero(is_first)
    num_regions = np.diff(first, append=len(hash_r)).astype(np.uint16)
    # Numbers follow the sorted names, so that the order does not depend on the manifest's.
    names = sorted(shards)
    number = np.array([names.index(name) for name in shards], dtype=np.int32)
    shard = number[shard_r[first]]
    order = np.argsort(shard, kind="stable")
    return ImageIndex(tuple(names), shard[order], hash_r[first][order], num_regions[order])


@dataclass(frozen=True)
class Draw:
    """The text of a sample, and whether the whole image takes the region's place.

    Wrong captions differ in one attribute from the short caption, so they come with that alone.
    """

    text: str
    is_full_image: bool
    negatives: tuple[str, ...] = ()


def draw(config: DataConfig, epoch: int, sample: Sample, region: Region) -> Draw:
    """The whole image with its caption for a share of the samples, else a long or short caption.

    The caption of a whole image is a describer's, where one was asked, else that with which it
    came. An image without any is never drawn whole: there is no text to match it with.
    """
    name = f"{config.seed}/{epoch}/{region.region_id}".encode()
    first, second = struct.unpack("<QQ", hashlib.blake2b(name, digest_size=16).digest())
    is_long = second / 2**64 < config.long_caption_share
    whole = (sample.long_caption if is_long else sample.short_caption) or sample.caption
    if first / 2**64 < config.full_image_share and whole.strip():
        return Draw(whole, is_full_image=True)
    if is_long:
        return Draw(region.long_caption, is_full_image=False)
    negatives = region.hard_negatives[: config.hard_negatives]
    return Draw(region.short_caption, is_full_image=False, negatives=negatives)
