"""What a source holds: files here, links followed, or objects of an S3 store.

An import step counts the content of its source in its fingerprint, so that a source which was
changed, mended or replaced is imported anew, and an unchanged one is not.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from components.core.digests import digest_by_stats, digest_of_files, is_too_large, sha256_of_files
from components.core.errors import InputError

log = logging.getLogger(__name__)

SHOWN = 5
MISSING, UNREADABLE = "missing", "unreadable"  # the step itself says what is wrong


def source_digest(address: str, endpoint_url: str = "", suffix: str = "") -> str:
    """A digest of the names and the content below a path or an `s3://` address.

    Of S3 the ETags count, which change with the content; nothing is fetched. Only files whose
    names end with `suffix` count. Of a folder with more than `PIXCLIP_VERIFY_GIB` names, sizes and
    times must do.

    Raises:
        InputError: the store cannot be listed.
    """
    from components.core.s3 import S3Store, is_s3

    if is_s3(address):
        objects = S3Store(endpoint_url).find(address)
        tags = {item.key: f"{item.num_bytes} {item.etag}" for item in objects}
        return digest_of_files({key: tag for key, tag in tags.items() if ends_with(key, suffix)})
    path = Path(address)
    if path.is_file():
        return digest_of_files({path.name: sha256_of_files([path])[0]})
    if not path.is_dir():
        return MISSING
    listing = list_folder(path)
    listing.tell(path)
    names = [name for name in listing.files if ends_with(name.name, suffix)]
    if is_too_large(path / name for name in names):
        return digest_by_stats(path, names)
    readable = [name for name in names if os.access(path / name, os.R_OK)]
    digests = sha256_of_files(path / name for name in readable)
    found = dict.fromkeys(map(str, names), UNREADABLE)
    return digest_of_files(found | dict(zip(map(str, readable), digests, strict=True)))


def require_apart(setting: str, folder: Path, source_folder: Path) -> None:
    """Refuse to import a folder into itself: each run would import what the one before brought.

    Raises:
        InputError: the output lies below the source that the setting names.
    """
    if folder.resolve().is_relative_to(source_folder.resolve()):
        raise InputError(
            f"{setting}: the output is to lie in {folder}, which is part of the source "
            f"{source_folder}: name another output, or the source's own folder"
        )


def ends_with(name: str, suffix: str) -> bool:
    """Whether a name has an ending, in whatever case."""
    return name.lower().endswith(suffix)


@dataclass
class Listing:
    """The files below a folder, and what an operator should know of links and others there."""

    files: list[Path] = field(default_factory=list)  # relative, in order
    num_hidden: int = 0  # files and folders whose name starts with a dot
    outside: list[str] = field(default_factory=list)  # links out of the folder, which are followed
    left_out: list[str] = field(default_factory=list)  # loops, folders that are read already, pipes
    dangling: list[str] = field(default_factory=list)  # links that lead nowhere

    def tell(self, folder: Path) -> None:
        """Log what was followed and what was left out, once in a process."""
        if self.outside:
            links = some_of(self.outside)
            _say(logging.INFO, f"{folder}: links to elsewhere are followed: {links}")
        if self.num_hidden:
            hidden = f"{self.num_hidden} hidden files or folders are left out"
            _say(logging.INFO, f"{folder}: {hidden}")
        for line in (*self.left_out, *self.dangling):
            _say(logging.WARNING, f"{folder}/{line} and is left out")


@lru_cache(maxsize=4096)
def _say(level: int, text: str) -> None:
    log.log(level, "%s", text)


def list_folder(folder: Path) -> Listing:
    """The files below a folder; symbolic links are followed, each folder is read once.

    Hidden files and folders (their name starts with a dot) are left out: unfinished downloads and
    the like. Files and folders come before links to them, so that a file keeps its own name.

    Raises:
        InputError: a folder cannot be read.
    """
    listing = Listing()
    own, links = [Path()], list[Path]()
    seen: dict[tuple[int, int], Path] = {}
    while own or links:
        relative = own.pop() if own else links.pop(0)
        if _is_first(folder, relative, seen, listing):
            for entry in _entries(folder / relative):
                _sort_in(folder, relative / entry.name, entry, (listing, own, links))
    listing.files.sort()
    return listing


def _is_first(
    root: Path, relative: Path, seen: dict[tuple[int, int], Path], listing: Listing
) -> bool:
    """Whether no other path has led to this folder yet."""
    stat = (root / relative).stat()
    earlier = seen.setdefault((stat.st_dev, stat.st_ino), relative)
    if earlier != relative:
        is_above = earlier in relative.parents
        what = "leads back to a folder above it" if is_above else f"is the same as {earlier}"
        listing.left_out.append(f"{relative} {what}")
    return earlier == relative


def _sort_in(
    root: Path,
    path: Path,
    entry: os.DirEntry[str],
    places: tuple[Listing, list[Path], list[Path]],
) -> None:
    """Put an entry where it belongs: a file, a folder, a link to a folder, or left out."""
    listing, own, links = places
    is_folder, is_file = os.path.isdir(entry.path), os.path.isfile(entry.path)
    if entry.name.startswith("."):
        listing.num_hidden += 1
    elif not is_folder and not is_file:
        is_dangling = entry.is_symlink() and not os.path.exists(entry.path)
        what = "link that leads nowhere" if is_dangling else "pipe, a socket or a device"
        (listing.dangling if is_dangling else listing.left_out).append(f"{path} is a {what}")
    else:
        if entry.is_symlink():
            _note_outside(root, path, listing)
        if is_file:
            listing.files.append(path)
        else:
            (links if entry.is_symlink() else own).append(path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None


def _note_outside(root: Path, path: Path, listing: Listing) -> None:
    target = (root / path).resolve()
    if not target.is_relative_to(root.resolve()):
        listing.outside.append(f"{path} to {target}")


def some_of(lines: Sequence[str]) -> str:
    """The first few of many lines, and how many more there are."""
    more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return ", ".join(lines[:SHOWN]) + more
