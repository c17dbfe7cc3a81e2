"""The images of a data set as columns of some 50 bytes: tens of millions fit in memory."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.core.errors import InputError
from components.core.shards import members_of
from components.core.tables import groups_of, read_batches
from pixclip.data.layout import SHARDS
from pixclip.near_duplicates import Hashes

DIGEST_BYTES = 32
# Of fixed length: numpy sorts and finds them byte by byte; a single one must be read by `hex_of`,
# for numpy takes zeros off its end.
Digests = npt.NDArray[np.bytes_]
Indices = npt.NDArray[np.int64]
MARK = "S9"  # as long as "benchmark"
IMAGE_NAME = re.compile(r"[0-9a-f]{64}\.jpg")
INDEX_COLUMNS = ("image_sha256", "image_phash", "split")


@dataclass(frozen=True)
class ImageTable:
    """What the splits need to know of N images, in the order of their digests."""

    digests: Digests  # [N], sha256
    phash: Hashes  # [N]
    marked: npt.NDArray[np.bytes_]  # [N], the source's split: train, benchmark or undecided (b"")
    num_regions: Indices  # [N]

    def __len__(self) -> int:
        return len(self.digests)


def digests_of(names: Iterable[str]) -> Digests:
    """Digests of their hex texts.

    Raises:
        ValueError: one is no sha256.
    """
    digests = bytearray()
    for name in names:
        digest = bytes.fromhex(name)
        if len(digest) != DIGEST_BYTES:
            raise ValueError(f"{name!r} is no sha256")
        digests += digest
    return np.frombuffer(bytes(digests), dtype=f"S{DIGEST_BYTES}")


def hex_of(digests: Digests) -> Iterator[str]:
    """Their hex texts."""
    texts = digests.tobytes().hex()
    return (texts[start : start + 64] for start in range(0, len(texts), 2 * DIGEST_BYTES))


def find_digests(among: Digests, digests: Digests) -> Indices:
    """The position of each digest among sorted ones, -1 if it is not there."""
    if not len(among):
        return np.full(len(digests), -1)
    places = np.searchsorted(among, digests).clip(max=len(among) - 1)
    return np.where(among[places] == digests, places, -1)


def read_images(captions: Path) -> ImageTable:
    """Every image of the captions.

    Raises:
        InputError: there is none, or one is marked for two splits.
    """
    parts = [_images_of(*columns) for columns in _index_columns(captions)]
    if not parts:
        raise InputError(f"{captions} holds no region to pack; see the quarantine for the reasons")
    return _merged(parts)


def _index_columns(captions: Path) -> Iterator[tuple[list[str], list[str], list[str]]]:
    for batch in read_batches(captions, INDEX_COLUMNS):
        if batch.num_rows:
            names, phashes, marks = (batch.column(name).to_pylist() for name in INDEX_COLUMNS)
            yield names, phashes, marks


def _images_of(names: Sequence[str], phashes: Sequence[str], marks: Sequence[str]) -> ImageTable:
    try:
        digests = digests_of(names)
    except ValueError as error:
        raise InputError(f"captions: an image_sha256 is damaged: {error}") from None
    bits = np.fromiter((int(text, 16) for text in phashes), dtype=np.uint64, count=len(phashes))
    marked = np.array([mark.encode() for mark in marks], dtype=MARK)
    return _merged([ImageTable(digests, bits, marked, np.ones(len(names), dtype=np.int64))])


def _merged(parts: Sequence[ImageTable]) -> ImageTable:
    """Each image once, with the sum of its regions."""
    digests, first, place = np.unique(
        np.concatenate([part.digests for part in parts]), return_index=True, return_inverse=True
    )
    marked = np.concatenate([part.marked for part in parts])
    other = np.flatnonzero(marked != marked[first][place])
    if len(other):
        image = place[other[0]]
        name = next(hex_of(digests[image : image + 1]))
        raise InputError(
            f"captions: regions of image {name} are marked for two splits, "
            f"{marked[first[image]].decode()!r} and {marked[other[0]].decode()!r}"
        )
    num_regions = np.zeros(len(digests), dtype=np.int64)
    np.add.at(num_regions, place, np.concatenate([part.num_regions for part in parts]))
    phash = np.concatenate([part.phash for part in parts])[first]
    return ImageTable(digests, phash, marked[first], num_regions)


class ImageStore:
    """Encoded images of all groups, read at random without unpacking their tars."""

    def __init__(self, images: Path, wanted: Digests) -> None:
        """Note where every wanted image begins; one pass over the tars' headers."""
        self._wanted = np.sort(wanted)
        self._tars = [
            tar for group in groups_of(images) for tar in sorted((images / group).glob(SHARDS))
        ]
        self._tar = np.full(len(wanted), -1, dtype=np.int32)
        self._offset, self._size = np.zeros((2, len(wanted)), dtype=np.int64)
        for number, tar in enumerate(self._tars):
            members = [member for member in members_of(tar) if IMAGE_NAME.fullmatch(member.name)]
            names = (member.name.removesuffix(".jpg") for member in members)
            places = find_digests(self._wanted, digests_of(names)).tolist()
            for place, member in zip(places, members, strict=True):
                if place >= 0:
                    self._tar[place] = number
                    self._offset[place], self._size[place] = member.offset, member.size

    def read(self, sha256: str) -> bytes:
        """The JPEG of an image.

        Raises:
            InputError: no group holds it.
        """
        (place,) = find_digests(self._wanted, digests_of([sha256])).tolist()
        if place < 0 or self._tar[place] < 0:
            raise InputError(f"images hold no {sha256}.jpg, though captions speak of it")
        with self._tars[self._tar[place]].open("rb") as file:
            file.seek(int(self._offset[place]))
            content: bytes = file.read(int(self._size[place]))
        return content
