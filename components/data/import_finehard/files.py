"""Where FineHARD's files are: annotations, read one after the other, and images, found by name.

No list of the images is made: there are twelve million.
"""

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import IO, Protocol, cast
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from components.core.archives import is_archive
from components.core.drafts import remove
from components.core.errors import InputError
from components.core.s3 import S3Object, S3Store, is_s3
from components.core.shards import members_of
from components.core.sources import list_folder
from components.data.formats.files import open_files
from components.data.formats.values import BadValueError
from data_contracts.reasons import FineHardReason

ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
OWN_FOLDER = "jsonfiles"  # of FineHARD's repository, which has other JSON files beside it


@dataclass(frozen=True)
class Annotations:
    """A file of annotations: here, or in S3, from where it is fetched when it is read."""

    name: str
    path: Path
    item: S3Object | None = None
    store: S3Store | None = None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """The content, unpacked where it is compressed."""
        if self.item and self.store:
            for _ in self.store.download(self.item, self.path):
                pass
        try:
            opener = gzip.open if self.name.endswith(".gz") else open
            with opener(self.path, "rb") as file:
                yield cast(IO[bytes], file)
        except OSError as error:
            raise InputError(f"{self.name} cannot be read: {error.strerror or error}") from None
        finally:
            if self.item:
                remove(self.path)


def find_annotations(address: str, endpoint_url: str, work: Path) -> list[Annotations]:
    """The files of annotations below an address, by name.

    Raises:
        InputError: there are none.
    """
    if is_s3(address) and not is_archive(address):
        store = S3Store(endpoint_url)
        objects = {item.uri: item for item in store.find(address)}
        return [
            Annotations(name, work / PurePosixPath(name).name, objects[name], store)
            for name in _chosen(list(objects), address)
        ]
    folder = _folder_of(address, endpoint_url, work / "annotations")
    if folder.is_file():
        return [Annotations(name, folder) for name in _chosen([folder.name], address)]
    names = [name.as_posix() for name in list_folder(folder).files]
    return [Annotations(name, folder / name) for name in _chosen(names, address)]


def _chosen(names: list[str], address: str) -> list[str]:
    found = sorted(name for name in names if name.lower().endswith(ENDINGS))
    own = [name for name in found if OWN_FOLDER in PurePosixPath(name).parts]
    if not found:
        raise InputError(
            f"import_finehard.annotations: {address} holds no {', '.join(ENDINGS)}; FineHARD's are "
            f"in its folder {OWN_FOLDER}"
        )
    return own or found


class ImageFiles(Protocol):
    """Images by the path that annotations name; usable from many threads."""

    def read(self, name: str) -> bytes:
        """The content of an image's file.

        Raises:
            BadValueError: it is not there, or too large.
        """
        ...

    def url(self, name: str) -> str:
        """What the image is called in the data set."""
        ...


@dataclass(frozen=True)
class TarIndex:
    """Where the members of a tar are, in 20 bytes each: annotations may name tars in any order."""

    names: npt.NDArray[np.uint64]  # hashes, ascending
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]

    @classmethod
    def of(cls, tar: Path) -> "TarIndex":
        """Reads the headers of all members.

        Raises:
            InputError: it is no tar of plain files.
        """
        members = members_of(tar)
        names = np.array([_hash(member.name) for member in members], dtype=np.uint64)
        order = np.argsort(names)
        offsets = np.array([member.offset for member in members], dtype=np.int64)
        sizes = np.array([min(member.size, 2**31 - 1) for member in members], dtype=np.int32)
        return cls(names[order], offsets[order], sizes[order])

    def find(self, name: str) -> tuple[int, int] | None:
        """Offset and size of a member, if there is one of that name."""
        wanted = np.uint64(_hash(name))
        place = int(np.searchsorted(self.names, wanted))
        if place == len(self.names) or self.names[place] != wanted:
            return None
        return int(self.offsets[place]), int(self.sizes[place])


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest())


class FolderImages:
    """Images in folders, or in tars that stand for folders."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Looks at nothing yet.

        Raises:
            InputError: there is no such folder.
        """
        if not folder.is_dir():
            raise InputError(f"import_finehard.images: {folder} is no folder")
        self._folder, self._max_bytes = folder, max_bytes
        self._tars: dict[Path, TarIndex] = {}
        self._indexing = Lock()

    def read(self, name: str) -> bytes:
        """The content of a file, or of the member of a tar."""
        path = self._folder / name
        tar = path.parent.with_name(f"{path.parent.name}.tar")
        try:
            if os.path.isfile(path):  # False of impossible names too
                return self._read(path, 0, self._max_bytes + 1)
            if path.parent != self._folder and os.path.isfile(tar):
                found = self._index(tar).find(path.name)
                if found:
                    return self._read(tar, *found)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        raise BadValueError(
            FineHardReason.IMAGE_MISSING, f"there is no {path}, nor a member of that name in {tar}"
        )

    def _read(self, path: Path, offset: int, num_bytes: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read(min(num_bytes, self._max_bytes + 1))
        return _bounded(content, path.name, self._max_bytes)

    def _index(self, tar: Path) -> TarIndex:
        with self._indexing:
            if tar not in self._tars:
                self._tars[tar] = TarIndex.of(tar)
            return self._tars[tar]

    def url(self, name: str) -> str:
        """`file:///folder/name`, from the folder of images on."""
        return f"file:///{quote(name)}"


class S3Images:
    """The objects below an S3 prefix."""

    def __init__(self, store: S3Store, uri: str, max_bytes: int) -> None:
        self._store, self._uri, self._max_bytes = store, uri.rstrip("/"), max_bytes

    def read(self, name: str) -> bytes:
        """The content of an object."""
        content = self._store.read(self.url(name), self._max_bytes + 1)
        if content is None:
            raise BadValueError(FineHardReason.IMAGE_MISSING, f"there is no {self.url(name)}")
        return _bounded(content, name, self._max_bytes)

    def url(self, name: str) -> str:
        """`s3://bucket/key`."""
        return f"{self._uri}/{name}"


def open_images(address: str, endpoint_url: str, max_bytes: int, work: Path) -> ImageFiles:
    """The images below an address.

    Raises:
        InputError: there is nothing.
    """
    if is_s3(address) and not is_archive(address):
        return S3Images(S3Store(endpoint_url), address, max_bytes)
    return FolderImages(_folder_of(address, endpoint_url, work / "images"), max_bytes)


def _folder_of(address: str, endpoint_url: str, unpacked: Path) -> Path:
    """A file or folder here; an archive is unpacked, once."""
    if not is_archive(address):
        return Path(address)
    open_files(address, endpoint_url, unpacked)
    return unpacked


def _bounded(content: bytes, name: str, max_bytes: int) -> bytes:
    if len(content) > max_bytes:
        raise BadValueError(FineHardReason.TOO_LARGE, f"{name} has more than {max_bytes} bytes")
    return content
