"""What a source holds: files here, links followed, or objects of an S3 store.

An import step counts the content of its source in its fingerprint, so that a source which was
changed, mended or replaced is imported anew, and an unchanged one is not.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from components.kernel.digests import (
    digest_by_stats,
    digest_of_files,
    is_too_large,
    sha256_of_files,
)

log = logging.getLogger(__name__)

MISSING = "missing"  # the step itself says what is wrong


def source_digest(address: str, endpoint_url: str = "") -> str:
    """A digest of the names and the content below a path or an `s3://` address.

    Of S3 the ETags count, which change with the content; nothing is fetched. Of a folder with more
    than `PIXCLIP_VERIFY_GIB` names, sizes and times must do.

    Raises:
        InputError: the store cannot be listed.
    """
    from components.kernel.s3 import S3Store, is_s3

    if is_s3(address):
        objects = S3Store(endpoint_url).find(address)
        return digest_of_files({item.key: f"{item.num_bytes} {item.etag}" for item in objects})
    path = Path(address)
    if path.is_file():
        return digest_of_files({path.name: sha256_of_files([path])[0]})
    if not path.is_dir():
        return MISSING
    names = list(walk_files(path))
    if is_too_large(path / name for name in names):
        return digest_by_stats(path, names)
    digests = sha256_of_files(path / name for name in names)
    return digest_of_files(dict(zip(map(str, names), digests, strict=True)))


def walk_files(folder: Path) -> Iterator[Path]:
    """The files below a folder in order, as relative paths; symbolic links are followed.

    Hidden files and folders (their name starts with a dot) are left out: unfinished downloads and
    the like. A link that leads back to a folder above it, and one that leads nowhere, is named in
    a warning and left out.
    """
    yield from _walk(folder, Path(), (_identity(folder),))


def _walk(root: Path, relative: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    for entry in sorted(os.scandir(root / relative), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        path = relative / entry.name
        if entry.is_dir():
            identity = _identity(root / path)
            if identity in above:
                log.warning("%s leads back to a folder above it and is left out", root / path)
                continue
            yield from _walk(root, path, (*above, identity))
        elif entry.is_file():
            yield path
        elif entry.is_symlink():
            log.warning("%s is a link that leads nowhere and is left out", root / path)


def _identity(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino
