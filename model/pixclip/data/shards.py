"""Tar shards and their samples: one at random, or all of a split in their order."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from pixclip.json_files import shown

KEY_BYTES = 512  # longer keys are refused
MAX_BYTES = {"json": 32 * 2**20, "jpg": 512 * 2**20}  # of a sample's members
CACHED_INDEXES = 64


# The members of a tar shard: names, places and sizes, and no trust in any of them.
#
# The one reader of shards. Python's `tarfile` is ten times slower, takes any type of member,
# recurses over extended headers and allocates what a header says.


@dataclass(frozen=True, slots=True)
class Member:
    """A plain file in a tar: its content is `size` bytes from `offset` on."""

    name: str
    offset: int
    size: int


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


# Offsets of POSIX ustar: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html
BLOCK_BYTES = 512  # headers and contents start at multiples of it
CHECKSUM = slice(148, 156)
REGULAR, FOLDER = (b"0", b"\0", b"7"), b"5"
PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK = b"x", b"g", b"L", b"K"
OTHER_TYPES = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"M": "a part of a file of another volume",
}
MAX_EXTENSION_BYTES = 2**20  # of an extended header: names are far shorter
MAX_NAME_CHARS = 4096
UNUSUAL = re.compile(r"[\x00-\x1f\x7f\\]")  # in a name
PAX_LENGTH = re.compile(rb"([0-9]{1,7}) ")
PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


class TarError(ValueError):
    """A file that is no tar of plain files, or is damaged."""


def read_members(file: BinaryIO) -> Iterator[Member]:
    """The plain files of a tar in their order; every one of them lies inside the file.

    Folders are passed over. Names are plainly relative, a leading `./` is left out.

    Raises:
        TarError: it is no tar, is compressed or ends too early, or holds a link, a device, a
            sparse file, or a name that leads out of it.
    """
    num_bytes = file.seek(0, 2)
    if not num_bytes:
        raise TarError("it is empty")
    offset, extended = 0, _Extended()
    while (header := _header(file, offset)).strip(b"\0"):
        _check_sum(header, offset)
        kind, content = header[156:157], offset + BLOCK_BYTES
        is_extension = kind in (PAX, PAX_GLOBAL, LONG_NAME, LONG_LINK)
        name = _name(header) if is_extension else extended.name or _name(header)
        size = _size(header, name)
        if not is_extension and extended.size is not None:
            size = extended.size
        if size > num_bytes - content:
            raise TarError(f"it ends inside its member {shown(name)}")
        if is_extension:
            extended.read(file, kind, content, size)
        else:
            if kind in REGULAR and not (kind == b"\0" and name.endswith("/")):
                yield Member(_plain(name), content, size)
            elif kind not in (FOLDER, b"\0"):
                what = OTHER_TYPES.get(kind, f"of the unknown type {kind!r}")
                raise TarError(f"its member {shown(name)} is {what}; shards hold plain files alone")
            extended = _Extended()
        offset = content + -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _header(file: BinaryIO, offset: int) -> bytes:
    file.seek(offset)
    header = file.read(BLOCK_BYTES)
    packing = next((name for start, name in PACKED.items() if header.startswith(start)), "")
    if packing and not offset:
        raise TarError(f"it is compressed by {packing}; samples are read at random: unpack it")
    if len(header) < BLOCK_BYTES:
        raise TarError("it ends without the closing blocks of a tar")
    return header


def _check_sum(header: bytes, offset: int) -> None:
    told = header[CHECKSUM].strip(b"\0 ")
    rest = header[: CHECKSUM.start] + b" " * 8 + header[CHECKSUM.stop :]
    signed = sum(rest) - 256 * sum(byte > 127 for byte in rest) if not rest.isascii() else None
    if not re.fullmatch(rb"[0-7]+", told) or int(told, 8) not in (sum(rest), signed):
        raise TarError(f"the header at byte {offset} has another checksum than it says")


def _name(header: bytes) -> str:
    name, prefix = (part.split(b"\0", 1)[0] for part in (header[:100], header[345:500]))
    if prefix and header[257:263] == b"ustar\0":  # GNU has other things there
        name = prefix + b"/" + name
    return _text(name)


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise TarError(f"its member {shown(name)} has a name that is not UTF-8") from None


def _size(header: bytes, name: str) -> int:
    field = header[124:136]
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b"\0 ")
    if field[0] == 0xFF or digits.startswith(b"-"):  # it would lead back, and around for ever
        raise TarError(f"its member {shown(name)} has a negative size")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise TarError(f"its member {shown(name)} has a size that is no number: {field!r}")
    return int(digits or b"0", 8)


def _plain(name: str) -> str:
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    is_inside = name and not name.startswith("/") and ".." not in name.split("/")
    if not is_inside or UNUSUAL.search(name) or len(name) > MAX_NAME_CHARS:
        raise TarError(f"its member {shown(name)} has no plain name, which stays in the shard")
    return name


class _Extended:
    """What extended headers say of the member that follows."""

    def __init__(self) -> None:
        self.name = ""
        self.size: int | None = None

    def read(self, file: BinaryIO, kind: bytes, offset: int, size: int) -> None:
        if size > MAX_EXTENSION_BYTES:
            raise TarError(f"an extended header of {size} bytes; at most {MAX_EXTENSION_BYTES}")
        file.seek(offset)
        content = file.read(size)
        if kind == LONG_NAME:
            self.name = _text(content.rstrip(b"\0"))
        elif kind in (PAX, PAX_GLOBAL):
            for keyword, value in _pax_records(content):
                self._take(keyword, value, is_global=kind == PAX_GLOBAL)

    def _take(self, keyword: str, value: bytes, *, is_global: bool) -> None:
        if keyword.startswith("GNU.sparse."):
            raise TarError("a sparse file; shards hold plain files alone")
        if keyword not in ("path", "size"):
            return
        if is_global:
            raise TarError(f"a global header that gives every member the {keyword} {shown(value)}")
        if keyword == "path":
            self.name = _text(value)
        elif re.fullmatch(rb"[0-9]{1,19}", value):
            self.size = int(value)
        else:
            raise TarError(f"an extended header with the size {shown(value)}, which is no number")


def _pax_records(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Records `length keyword=value` with a line feed; the length counts all of it."""
    start = 0
    content = content.rstrip(b"\0")
    while start < len(content):
        length = PAX_LENGTH.match(content, start)
        stop = start + int(length[1]) if length else 0
        record = content[length.end() : stop] if length else b""
        keyword, separator, value = record[:-1].partition(b"=")
        if not separator or not record.endswith(b"\n") or stop > len(content):
            raise TarError("an extended header whose records cannot be read")
        yield keyword.decode("utf-8", "replace"), value
        start = stop
