"""The files of a data set: on disk as they are, from S3 and the like through a bounded cache."""

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from pixclip.data.errors import DataError

DEFAULT_CACHE_BYTES = 100 * 2**30
MAX_DOWNLOADS = 10  # of a file that other processes keep dropping from the cache


class Store:
    """Opens files by their name below a folder or any URI that fsspec knows (`s3://…`).

    A remote file is downloaded once, by one process, and appears in the cache by rename. Its name
    there holds the version that the remote end tells, so that a changed file is never mixed up.
    The files used longest ago make room.
    """

    def __init__(
        self,
        folder_or_uri: str | Path,
        cache_folder: Path | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self.uri = str(folder_or_uri).removeprefix("file://")
        self.is_remote = "://" in self.uri
        self._cache = Path(cache_folder or _default_cache())
        self._cache_bytes = cache_bytes
        self._remote: tuple[int, Any] | None = None  # process and file system
        self._downloaded: dict[str, Path] = {}

    def open(self, name: str) -> BinaryIO:
        """A file, opened for reading; it stays readable even if the cache drops it meanwhile.

        Raises:
            DataError: there is no such file, it cannot be read, its name leads out of the data
                set, or the cache is too small for all that share it.
        """
        if ".." in name.split("/") or name.startswith("/") or "\0" in name or not name:
            raise DataError(f"{self.uri}: the name {name!r} of a file leads out of the data set")
        if self.is_remote:
            return self._open_cached(name)
        path = Path(self.uri) / name
        with self._told_if_missing(name):
            if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would never end
                raise DataError(f"{path} is no file")
            return path.open("rb")

    def _open_cached(self, name: str) -> BinaryIO:
        if name in self._downloaded:
            with suppress(FileNotFoundError):
                return self._touch(self._downloaded[name]).open("rb")
        for _ in range(MAX_DOWNLOADS):
            # Another process may make room of the file while it is downloaded, or right after.
            with suppress(FileNotFoundError):
                return self._touch(self._download(name)).open("rb")
        raise DataError(
            f"{name} was dropped from {self._cache} {MAX_DOWNLOADS} times before it could be "
            f"read: {self._cache_bytes} bytes are too few for the processes that share this "
            "cache; give it more room or use fewer processes"
        )

    @contextmanager
    def _told_if_missing(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise DataError(f"{self.uri} has no file {name}") from None
        except OSError as error:
            if self.is_remote:  # a store that cannot be reached is no fault of the data
                raise
            raise DataError(f"{self.uri}/{name} cannot be read: {error.strerror}") from None

    @staticmethod
    def _touch(path: Path) -> Path:
        os.utime(path)
        return path

    def _download(self, name: str) -> Path:
        files, source = self._files(), f"{self.uri}/{name}"
        with self._told_if_missing(name):
            about = files.info(source)
        version = about.get("ETag") or about.get("LastModified") or about.get("mtime")
        digest = hashlib.sha256(f"{source} {version} {about['size']}".encode()).hexdigest()
        target = self._cache / f"{digest}{Path(name).suffix}"
        self._cache.mkdir(parents=True, exist_ok=True)
        with _locked(self._cache / f"{digest}.lock"):
            if not target.exists():
                self._make_room(about["size"])
                partial = target.with_suffix(f".partial-{os.getpid()}")
                with self._told_if_missing(name):
                    files.get_file(source, str(partial))
                if partial.stat().st_size != about["size"]:
                    partial.unlink()
                    raise DataError(f"{source} was cut short while it was downloaded; try again")
                partial.replace(target)
        self._downloaded[name] = target
        return target

    def _files(self) -> Any:
        """The remote file system; one for each process, as its threads do not survive a fork."""
        if self._remote is None or self._remote[0] != os.getpid():
            from fsspec.core import url_to_fs

            self._remote = os.getpid(), url_to_fs(self.uri)[0]
        return self._remote[1]

    def _make_room(self, num_bytes: int) -> None:
        found = list(_files_in(self._cache))
        excess = sum(about.st_size for _, about in found) + num_bytes - self._cache_bytes
        for path, about in sorted(found, key=lambda item: item[1].st_mtime_ns):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= about.st_size


def _files_in(cache: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of a cache; other processes rename and remove some meanwhile."""
    for path in cache.iterdir():
        if path.suffix != ".lock":
            with suppress(FileNotFoundError):
                yield path, path.stat()


def _default_cache() -> Path:
    return Path(os.environ.get("PIXCLIP_CACHE") or Path.home() / ".cache" / "pixclip") / "shards"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
