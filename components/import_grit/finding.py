"""Find GRIT's files in a folder or below an S3 prefix, and give each a safe name of its own."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from components.kernel.digests import sha256_text
from components.kernel.errors import InputError
from components.kernel.s3 import S3Object, S3Store, split_uri
from components.kernel.sources import ends_with, list_folder, some_of

log = logging.getLogger(__name__)

SUFFIX = ".parquet"
MAX_PART_BYTES = 150  # of a folder or file in a name; file systems take 255, some of them less
ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\\:*?\"<>|]")  # what some file system refuses


Found = tuple[str, Path | S3Object]  # the name below the source, and where it is


@dataclass(frozen=True)
class Source:
    """A file to bring: its name below the artifact, and where it is."""

    name: PurePosixPath
    origin: Path | S3Object

    @property
    def place(self) -> str:
        """Where it is, for a message."""
        return str(self.origin) if isinstance(self.origin, Path) else self.origin.uri


def local_sources(folder: Path) -> list[Source]:
    """The Parquet files below a folder, by name; links are followed, a file is read once.

    Raises:
        InputError: it is no folder, cannot be read, or a link in it leads nowhere.
    """
    if not folder.is_dir():
        raise InputError(f"import_grit.uri: {folder} is no folder")
    listing = list_folder(folder)
    if listing.dangling:
        raise InputError(
            f"{folder}: {some_of(listing.dangling)}; what it led to would be lost without a word: "
            "mount or restore it, or remove the link"
        )
    listing.tell(folder)
    found = _visible([(name.as_posix(), folder / name) for name in listing.files], folder)
    num_others = sum(not ends_with(name.name, SUFFIX) for name in listing.files)
    if num_others:
        log.info("%s: %d files do not end with %s and are left", folder, num_others, SUFFIX)
    return _named(_once(folder, found))


def s3_sources(store: S3Store, uri: str) -> list[Source]:
    """The Parquet objects below a prefix, by key.

    Raises:
        InputError: the bucket cannot be listed, or a key leads out of the artifact.
    """
    _, prefix = split_uri(uri)
    start = len(prefix.rstrip("/"))
    found: list[Found] = [
        (item.key[start:].lstrip("/") or item.key.rpartition("/")[2], item)
        for item in store.find(uri)
    ]
    return _named(_visible(found, uri))


def safe_name(name: str, uri: str) -> PurePosixPath:
    """A relative path that stays below the artifact, and that every file system takes.

    Parts with odd characters, or too long, are cut and marked with a digest of the whole name.

    Raises:
        InputError: it would leave the artifact, or be hidden there.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or not path.name or is_hidden(path) or "\0" in name:
        raise InputError(f"{uri}: a key with the parts {path.parts} cannot become a file name")
    parts = [_safe_part(part) for part in path.parts]
    stem = parts[-1][: -len(SUFFIX)] if ends_with(parts[-1], SUFFIX) else parts[-1]
    safe = PurePosixPath(*parts[:-1], f"{stem}{SUFFIX}")
    return safe if safe == path else _marked(safe, name)


def is_hidden(name: PurePosixPath) -> bool:
    """Whether a part of the name starts with a dot or `_`, as `..` and unfinished files do."""
    return any(part.startswith((".", "_")) for part in name.parts)


def _visible(found: Sequence[Found], where: object) -> list[Found]:
    """The Parquet files, by name, without the hidden ones, which are told."""
    tables = sorted(
        (item for item in found if ends_with(item[0], SUFFIX)), key=lambda item: item[0]
    )
    hidden = [name for name, _ in tables if is_hidden(PurePosixPath(name)) and not _leads_out(name)]
    if hidden:
        log.warning(
            "%s: names with a part that begins with . or _ mean unfinished work; left out: %s",
            where,
            some_of(hidden),
        )
    return [item for item in tables if item[0] not in set(hidden)]


def _leads_out(name: str) -> bool:
    return bool({".", ".."} & set(name.split("/")))


def _once(folder: Path, found: Sequence[Found]) -> list[Found]:
    """Without names that lead to a file which another name has; real files before links."""
    first: dict[tuple[int, int], str] = {}
    for name, _ in sorted(found, key=lambda item: ((folder / item[0]).is_symlink(), item[0])):
        stat = (folder / name).stat()
        earlier = first.setdefault((stat.st_dev, stat.st_ino), name)
        if earlier != name:
            log.warning("%s/%s is the same file as %s and is read once", folder, name, earlier)
    return [item for item in found if item[0] in set(first.values())]


def _named(found: Sequence[Found]) -> list[Source]:
    """Sources under names of which none is another's, nor another's folder, in any case."""
    names = [safe_name(name, str(origin)) for name, origin in found]
    taken = {_folded(parent) for name in names for parent in name.parents}
    sources = []
    for (name, origin), safe in zip(found, names, strict=True):
        if _folded(safe) in taken:
            key = origin.key if isinstance(origin, S3Object) else name
            log.warning("%r differs too little from another name: it gets a mark", key)
            safe = _marked(safe, key)
        taken.add(_folded(safe))
        sources.append(Source(safe, origin))
    return sources


def _folded(name: PurePosixPath) -> str:
    """What names have in common that some file systems take for one."""
    return normalize("NFC", str(name)).casefold()


def _safe_part(part: str) -> str:
    odd_free = ODD.sub("-", part)
    return odd_free.encode()[:MAX_PART_BYTES].decode(errors="ignore")


def _marked(name: PurePosixPath, original: str) -> PurePosixPath:
    stem = name.name.removesuffix(SUFFIX)
    return name.with_name(f"{stem}~{sha256_text(original)[:8]}{SUFFIX}")
