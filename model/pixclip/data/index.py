"""Which images a split has, in a few bytes each: 20 million regions fit in the memory of a rank."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pixclip.data.errors import DataError
from pixclip.data.shards import key_hashes, open_manifest
from pixclip.data.store import Store

# Legend: I = images of the split, in the order of their shards.
COLUMNS = ["split", "shard", "key"]


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
