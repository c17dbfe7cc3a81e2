"""Samples of LongGRIT's shards: one at random, or all of a split in their order."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pixclip.data.errors import DataError
from pixclip.data.layout import MANIFEST_NAME
from pixclip.data.samples import Sample, parse_sample
from pixclip.data.store import Store
from pixclip.data.tar import Member, TarError, read_members
from pixclip.json_files import shown

KEY_BYTES = 512  # longer keys are refused
MAX_BYTES = {"json": 32 * 2**20, "jpg": 512 * 2**20}  # of a sample's members
CACHED_INDEXES = 64


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

    def samples(self, shard: str, *, with_images: bool = True) -> Iterator[Sample]:
        """All samples of a shard in their order, if wanted without the bytes of their images.

        Raises:
            DataError: shard or sample is missing or damaged.
        """
        with self.store.open(shard) as file:
            for key, members in _group(file, shard).items():
                yield _read_sample(file, shard, key, members, with_image=with_images)

    def _build_index(self, shard: str) -> dict[int, tuple[str, dict[str, Member]]]:
        with self.store.open(shard) as file:
            samples = _group(file, shard)
        hashes = key_hashes(np.array([key.encode() for key in samples])).tolist()
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
    with open_manifest(store) as file:
        table = pq.read_table(file, columns=["shard"], filters=[("split", "=", split)])
        names = table["shard"].cast(pa.string()).unique().to_pylist()
    if not names:
        raise DataError(f"the manifest of {store.uri} has no split '{split}'")
    if None in names:
        raise DataError(f"the manifest of {store.uri} has a row without a shard")
    return sorted(names)


@contextmanager
def open_manifest(store: Store) -> Iterator[BinaryIO]:
    """The manifest of a data set; an error while it is read names its place.

    Raises:
        DataError: it is missing, is no Parquet, or lacks a column.
    """
    with store.open(MANIFEST_NAME) as file:
        try:
            yield file
        except (pa.ArrowException, OSError, KeyError, UnicodeError) as error:
            raise DataError(
                f"the manifest {store.uri}/{MANIFEST_NAME} cannot be read: {shown(error)}"
            ) from error


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


def _read_sample(
    file: BinaryIO, shard: str, key: str, members: Mapping[str, Member], *, with_image: bool = True
) -> Sample:
    parts = []
    for extension in ("json", "jpg"):
        if extension not in members:
            raise DataError(f"shard {shard}, sample {key}: there is no {extension}")
        member, limit = members[extension], MAX_BYTES[extension]
        if member.size > limit:
            raise DataError(
                f"shard {shard}, sample {key}: its {extension} has {member.size} bytes; "
                f"at most {limit} are read"
            )
        if extension == "json" or with_image:
            file.seek(member.offset)
            parts.append(file.read(member.size))
        else:
            parts.append(b"")
    return parse_sample(shard, key, *parts)


def _group(file: BinaryIO, shard: str) -> dict[str, dict[str, Member]]:
    samples: dict[str, dict[str, Member]] = {}
    try:
        for member in read_members(file):
            folder, slash, base = member.name.rpartition("/")
            key, _, extension = base.partition(".")
            parts = samples.setdefault(folder + slash + key, {})
            if extension in parts:
                raise DataError(f"shard {shard}, sample {folder}{slash}{key}: two {extension}")
            parts[extension] = member
    except (TarError, OSError) as error:
        raise DataError(f"shard {shard} is no tar or is damaged: {error}") from error
    if not samples:
        raise DataError(f"shard {shard} holds no sample; it was not written to its end")
    return samples
