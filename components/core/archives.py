"""Unpack tar and zip archives of data sets: plain files below one folder, and no more than fits.

An archive is somebody else's. A member that is a link or a device, leads out of the folder, or
comes twice is refused, and so is what unpacks to far more bytes than the archive has. Published
data sets hold none of these.
"""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from components.core.drafts import remove
from components.core.errors import InputError
from components.core.progress import progress

TARS, ZIPS = (".tgz", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"), (".zip",)
MAX_MEMBERS = 2_000_000
# Photographs do not shrink, and tables of text to a tenth: a bomb to a thousandth.
MAX_RATIO, FREE_BYTES = 20, 1 << 26
MAX_NAME_BYTES = 1024
PIECE_BYTES = 1 << 20
DAMAGES = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


def is_archive(name: str) -> bool:
    """Whether a file's name is that of an archive."""
    return name.lower().endswith(TARS + ZIPS)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive; `folder` appears whole, or not at all.

    Raises:
        InputError: it is damaged, or holds what is refused; names the member.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    remove(partial)
    partial.mkdir(parents=True)
    try:
        _write_members(archive, partial)
    except BaseException:
        remove(partial)
        raise
    partial.rename(folder)


def _write_members(archive: Path, folder: Path) -> None:
    left = MAX_RATIO * archive.stat().st_size + FREE_BYTES
    with progress(f"unpack {archive.name}"[:60], unit="file") as bar, _told(archive):
        for number, (name, file) in enumerate(_members(archive)):
            if number == MAX_MEMBERS:
                raise InputError(f"{archive} holds more than {MAX_MEMBERS} files")
            target = folder / _safe_name(name, archive)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as copy:
                while piece := file.read(PIECE_BYTES):
                    left -= len(piece)
                    if left < 0:
                        raise InputError(
                            f"{archive}: it unpacks to more than {MAX_RATIO} times its size, as a "
                            "bomb does; unpack it yourself if you trust it, and name the folder"
                        )
                    copy.write(piece)
            bar.update()


@contextmanager
def _told(archive: Path) -> Iterator[None]:
    """Turn what the libraries raise on damaged archives into an error of an input."""
    try:
        yield
    except FileExistsError as error:
        raise InputError(f"{archive}: two members have the name {error.filename}") from None
    except NotADirectoryError as error:
        raise InputError(f"{archive}: {error.filename} is below another member") from None
    except OSError as error:  # also of gzip and bz2, about damaged streams
        place = f": {error.filename}" if error.filename else ""
        raise InputError(
            f"{archive} cannot be unpacked: {error.strerror or error}{place}"
        ) from error
    except (*DAMAGES, NotImplementedError, ValueError) as error:
        raise InputError(
            f"{archive} cannot be unpacked: {type(error).__name__}: {error}; fetch it again"
        ) from error


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of every plain file, in the order of the archive."""
    if archive.name.lower().endswith(ZIPS):
        yield from _zip_members(archive)
    else:
        yield from _tar_members(archive)


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isdir():
                continue
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                raise InputError(f"{archive}: {member.name!r:.200} is a link or a device")
            with content:
                yield member.name, content


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            if member.is_dir():
                continue
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                raise InputError(f"{archive}: {member.filename!r:.200} is a link or a device")
            with zipped.open(member) as content:
                yield member.filename, content


def _safe_name(name: str, archive: Path) -> PurePosixPath:
    """A member's relative path, which stays below the folder.

    Raises:
        InputError: it does not.
    """
    path = PurePosixPath(name)
    is_bad = path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name
    if is_bad or not path.parts or len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES:
        raise InputError(f"{archive}: the member {name!r:.200} does not stay below its folder")
    return path
