"""The files of a source: a folder, an archive, or an S3 prefix, by their relative names."""

import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from components.core.archives import is_archive, unpack
from components.core.digests import sha256_text
from components.core.drafts import remove
from components.core.errors import InputError
from components.core.progress import progress
from components.core.s3 import S3Object, S3Store, is_s3, split_uri
from components.core.sources import list_folder

MAX_BYTES = 1 << 28  # of one file: the largest table of the formats has 80 MB


class Files(Protocol):
    """Files by relative name, with `/` between its parts; usable from many threads."""

    @property
    def address(self) -> str:
        """What a person calls the source."""
        ...

    @property
    def names(self) -> frozenset[str]:
        """All files."""
        ...

    def version(self, name: str) -> str:
        """A text that changes with the file's content; "" if the file must be read for it."""
        ...

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            InputError: it cannot be read, or has more bytes than any file of the formats.
        """
        ...

    def url(self, name: str, sha256: str) -> str:
        """The address that `ingest` fetches the file by."""
        ...


class FolderFiles:
    """A folder of this machine; links are followed, hidden files left out."""

    def __init__(self, folder: Path, address: str, url_folder: str = "") -> None:
        """`url_folder`: what leads to the folder from the root of `file:///` addresses.

        Raises:
            InputError: it is no folder, or cannot be read.
        """
        if not folder.is_dir():
            raise InputError(f"{address} is neither a folder nor an archive (.tgz, .tar, .zip)")
        self.address, self._folder, self._url_folder = address, folder, url_folder
        self.names = frozenset(name.as_posix() for name in list_folder(folder).files)

    def version(self, name: str) -> str:
        """Nothing: times and sizes of files say too little of their content."""
        return ""

    def read(self, name: str) -> bytes:
        """The content of a file."""
        try:
            with (self._folder / name).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise InputError(f"{self.address}: cannot read {name}: {error.strerror}") from None
        return _bounded(content, f"{self.address}/{name}")

    def url(self, name: str, sha256: str) -> str:
        """`file:///folder/name#sha256=…`."""
        path = os.fsencode(f"{self._url_folder}/{name}".lstrip("/"))
        return f"file:///{quote(path)}#sha256={sha256}"


class S3Files:
    """The objects below an S3 prefix."""

    def __init__(self, store: S3Store, uri: str) -> None:
        """Lists them.

        Raises:
            InputError: that fails, or there are none.
        """
        self.address, self._store = uri, store
        start = len(split_uri(uri)[1].rstrip("/"))
        self._objects = {item.key[start:].lstrip("/"): item for item in store.list_objects(uri)}
        if not self._objects:
            raise InputError(f"{uri}: there is nothing below this prefix")

    @cached_property
    def names(self) -> frozenset[str]:
        """All objects, without the prefix."""
        return frozenset(self._objects)

    def version(self, name: str) -> str:
        """Address and ETag of the object."""
        return f"{self._objects[name].uri} {self._objects[name].etag}"

    def read(self, name: str) -> bytes:
        """The content of an object."""
        item = self._objects[name]
        if item.num_bytes > MAX_BYTES:
            return _bounded(b"", item.uri, item.num_bytes)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "object"
            for _ in self._store.download(item, target):
                pass
            return target.read_bytes()

    def url(self, name: str, sha256: str) -> str:
        """`s3://bucket/key`."""
        return self._objects[name].uri


def open_files(address: str, endpoint_url: str, folder: Path, url_folder: str = "") -> Files:
    """The files of a source; an archive is unpacked into `folder`, to which a folder is linked.

    So the images of all sources lie below one folder, as `ingest.file_root` asks; the link is
    followed there because `FolderFiles.url` promises what is behind it.

    Raises:
        InputError: the source is not there, cannot be read or unpacked.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if is_s3(address):
        store = S3Store(endpoint_url)
        if not is_archive(address):
            return S3Files(store, address)
        if not folder.exists():
            _unpack_object(store, store.describe(address), folder)
    elif Path(address).is_file() and is_archive(address):
        if not folder.exists():
            unpack(Path(address), folder)
    elif Path(address).is_dir():
        remove(folder)
        folder.symlink_to(Path(address).resolve())
    return FolderFiles(folder if folder.exists() else Path(address), address, url_folder)


def _unpack_object(store: S3Store, item: S3Object, folder: Path) -> None:
    name = item.key.rpartition("/")[2]
    kept = folder.with_name(f".{sha256_text(item.uri + item.etag)[:16]}-{name[-40:]}")
    with progress(name[-40:], item.num_bytes, unit="B") as bar:
        for num_bytes in store.download(item, kept):
            bar.update(num_bytes)
    unpack(kept, folder)
    kept.unlink()


def _bounded(content: bytes, place: str, num_bytes: int | None = None) -> bytes:
    if (len(content) if num_bytes is None else num_bytes) > MAX_BYTES:
        raise InputError(f"{place} has more than {MAX_BYTES} bytes, more than any file of a format")
    return content
