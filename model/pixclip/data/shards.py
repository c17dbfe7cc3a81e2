"""Samples of LongGRIT's shards: one at random, or all of a split in their order."""

import tarfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pixclip.data.errors import DataError
from pixclip.data.samples import Sample, parse_sample
from pixclip.data.store import Store

MANIFEST_NAME = "manifest.parquet"
BLOCK_BYTES = 512  # of a tar: headers and contents start at multiples of it
KEY_BYTES = 512  # longer keys are refused
CACHED_INDEXES = 64
Member = tuple[int, int]  # offset and size in bytes


class Shards:
    """Random access to the samples of a data set's shards."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._index = lru_cache(maxsize=CACHED_INDEXES)(self._build_index)

    def sample(self, shard: str, key_hash: int) -> Sample:
        """The sample whose key has this hash (see `key_hashes`).

        Raises:
            DataError: shard or sample is missing or damaged.
        """
        samples = self._index(shard)
        if key_hash not in samples:
            raise DataError(
                f"shard {shard} has no sample for a row of the manifest; "
                "the manifest belongs to other shards: run `pixclip check`"
            )
        key, members = samples[key_hash]
        with self.store.open(shard) as file:
            return _read_sample(file, shard, key, members)

    def samples(self, shard: str) -> Iterator[Sample]:
        """All samples of a shard in their order."""
        with self.store.open(shard) as file:
            for key, members in _group(_members(file), shard).items():
                yield _read_sample(file, shard, key, members)

    def _build_index(self, shard: str) -> dict[int, tuple[str, dict[str, Member]]]:
        with self.store.open(shard) as file:
            samples = _group(_members(file), shard)
        hashes = key_hashes(np.array(list(samples), dtype=np.bytes_)).tolist()
        return dict(zip(hashes, samples.items(), strict=True))


def iterate_images(folder_or_uri: str | Path, split: str) -> Iterator[Sample]:
    """Every image of a split with its regions, in the order of the shards.

    Raises:
        DataError: the split is empty, or a shard or sample is missing or damaged.
    """
    store = Store(folder_or_uri)
    shards = Shards(store)
    for shard in _shards_of(store, split):
        yield from shards.samples(shard)


def _shards_of(store: Store, split: str) -> Sequence[str]:
    with store.open(MANIFEST_NAME) as file:
        table = pq.read_table(file, columns=["shard"], filters=[("split", "=", split)])
    names = sorted(table["shard"].unique().to_pylist())
    if not names:
        raise DataError(f"the manifest of {store.uri} has no split '{split}'")
    return names


def key_hashes(keys: npt.NDArray[np.bytes_]) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of every key; it does not depend on the other keys.

    A data set holds millions of keys of 64 characters: hashes take an eighth of the memory.
    """
    if keys.itemsize > KEY_BYTES:
        raise DataError(f"a sample's key is longer than {KEY_BYTES} bytes")
    words = keys.astype(f"S{-(-keys.itemsize // 8) * 8}").view("<u8").reshape(len(keys), -1)
    factors = np.random.default_rng(0).integers(0, 2**64, KEY_BYTES // 8, dtype=np.uint64) | 1
    # The bytes that pad short keys are zero and add nothing.
    sums = (words * factors[: words.shape[1]]).sum(axis=1, dtype=np.uint64)
    return np.asarray(sums ^ (sums >> np.uint64(29)))


def _read_sample(file: BinaryIO, shard: str, key: str, members: dict[str, Member]) -> Sample:
    parts = []
    for extension in ("json", "jpg"):
        if extension not in members:
            raise DataError(f"shard {shard}, sample {key}: there is no {extension}")
        offset, size = members[extension]
        file.seek(offset)
        parts.append(file.read(size))
        if len(parts[-1]) < size:
            raise DataError(f"shard {shard}, sample {key}: the shard ends inside its {extension}")
    return parse_sample(shard, key, *parts)


def _group(members: Iterator[tuple[str, Member]], shard: str) -> dict[str, dict[str, Member]]:
    samples: dict[str, dict[str, Member]] = {}
    try:
        for name, place in members:
            key, _, extension = name.partition(".")
            samples.setdefault(key, {})[extension] = place
    except (tarfile.TarError, ValueError) as error:
        raise DataError(f"shard {shard} is no tar or is damaged: {error}") from error
    return samples


def _members(file: BinaryIO) -> Iterator[tuple[str, Member]]:
    """Name, offset and size of every member; ten times faster than tarfile where headers are plain.

    Every worker reads the headers of every shard, so this is part of the time of an epoch.
    """
    offset = 0
    while (header := _header(file, offset)).strip(b"\0"):
        is_plain = header[156:157] in (b"0", b"\0") and not header[345]
        if not is_plain or header[257:262] != b"ustar":
            yield from _members_by_tarfile(file)  # repeats what came before
            return
        name, size = header[:100].rstrip(b"\0").decode(), int(header[124:136].rstrip(b"\0 "), 8)
        yield name, (offset + BLOCK_BYTES, _checked(size, name))
        offset += BLOCK_BYTES + -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _header(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    header = file.read(BLOCK_BYTES)
    if len(header) < BLOCK_BYTES:
        raise tarfile.ReadError("it ends without the closing blocks of a tar")
    return header


def _members_by_tarfile(file: BinaryIO) -> Iterator[tuple[str, Member]]:
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            size = _checked(member.size, member.name)
            if member.isreg():
                yield member.name, (member.offset_data, size)


def _checked(size: int, name: str) -> int:
    if size < 0:  # it would lead back, and around for ever
        raise tarfile.ReadError(f"its member {name} has a negative size")
    return size
