"""From the file names of an annotation file to the addresses of its images.

A local image's address ends in `#sha256=…`, as pip writes it: a replaced picture has another
address, so that it is fetched anew, and `ingest` can follow a link that leads out of the folder
without trusting anybody: only who has read a file knows its digest.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from unicodedata import normalize
from urllib.parse import quote, unquote

from components.core.digests import file_sha256
from components.core.errors import InputError
from components.core.s3 import is_s3, split_uri
from components.data.formats.values import LONE_HALVES, BadValueError, safe_path, shown
from data_contracts.reasons import ImportReason

LEADS_OUT = re.compile(r"^/|(?:^|/)\.\.(?:/|$)|\0")


def address_maker(images: str) -> Callable[[str], str]:
    """From the file name of an annotation to the address of the image.

    Raises:
        InputError: `images` is neither a folder nor an s3:// address.
    """
    if is_s3(images):
        bucket, prefix = split_uri(images)
        base = f"s3://{bucket}/{prefix.rstrip('/')}/" if prefix else f"s3://{bucket}/"
        return lambda name: base + _store_key(name)
    folder = Path(images)
    if not folder.is_dir():
        raise InputError(f"import_coco.images: {images} is no folder")
    return lambda name: local_address(folder, name)


def local_address(folder: Path, name: str) -> str:
    """The address of an image below a folder, with the digest of its bytes if it is there.

    Raises:
        BadValueError: `bad_file_name`.
    """
    for spelling in _spellings(name):
        file = folder / os.fsdecode(_on_disk(spelling))
        try:
            if file.is_file():
                return f"{_address(spelling)}#sha256={file_sha256(file)}"
        except (OSError, ValueError):  # ingest says what is wrong with it
            break
    return _address(safe_path(name))


def _spellings(name: str) -> Iterator[str]:
    """A name as it stands, with Windows' separators, decoded, and in both forms of its accents."""
    if "\\" in name and not name.startswith("/") and ".." not in PurePosixPath(name).parts:
        yield name
    plain = safe_path(name)
    yield plain
    for other in (unquote(plain), normalize("NFC", plain), normalize("NFD", plain)):
        if other != plain and not LEADS_OUT.search(other):
            yield other


def _address(path: str) -> str:
    return f"file:///{quote(_on_disk(path))}"


def _store_key(name: str) -> str:
    if LONE_HALVES.search(name):
        raise BadValueError(
            ImportReason.BAD_FILE_NAME, f"the file name {shown(name)} is no valid text"
        )
    return safe_path(name)


def _on_disk(path: str) -> bytes:
    """The bytes of a file's name; those that are no UTF-8 arrive as surrogates."""
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        detail = f"the file name {shown(path)} is no valid text"
        raise BadValueError(ImportReason.BAD_FILE_NAME, detail) from None
