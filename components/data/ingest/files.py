"""Fetch file:/// URLs, inside one folder only.

A URL may promise the content of its file, `file:///name#sha256=…`. Then nothing else is taken, and
a link in the folder is followed wherever it leads: `import_coco` read the file on the operator's
behalf, and a stranger's record cannot know the digest of a file that its author has not read.
"""

import errno
import hashlib
import os
import stat
from pathlib import Path, PurePosixPath
from urllib.parse import unquote_to_bytes, urlsplit

from components.data.ingest.body import Body
from components.data.ingest.failures import LOCAL_ERRNOS, FetchError, WorldError, local_fault
from data_contracts.reasons import IngestReason

PIECE_BYTES = 2**20


def read_file_url(url: str, file_root: str, max_bytes: int) -> bytes:
    """The bytes of `file:///path`, the path being relative to `file_root`.

    Raises:
        FetchError: `file_not_allowed`, `file_missing`, `file_changed`, `too_large`,
            `not_an_image`.
    """
    path = resolve_file_url(url, file_root)
    try:
        with path.open("rb") as file, Body(max_bytes) as body:
            while piece := file.read(PIECE_BYTES):
                body.write(piece)
            data = body.value()
    except OSError as error:
        if error.errno in LOCAL_ERRNOS:
            raise local_fault(error, f"cannot read {path}") from error
        raise FetchError(IngestReason.FILE_MISSING, "the file cannot be read") from None
    promise = promised_sha256(url)
    if promise and hashlib.sha256(data).hexdigest() != promise:
        raise FetchError(
            IngestReason.FILE_CHANGED, "not the file that was imported; import the source again"
        )
    return data


def promised_sha256(url: str) -> str:
    """The digest of the content that a URL promises; "" if it promises none."""
    name, _, digest = urlsplit(url).fragment.partition("=")
    return digest if name == "sha256" else ""


def resolve_file_url(url: str, file_root: str) -> Path:
    """The regular file behind a URL; a path that leaves `file_root`, also by a link, is refused.

    A link that leads out is followed where the URL promises what is behind it, and keeps that.

    Raises:
        FetchError: `file_not_allowed`, `file_missing`.
        WorldError: `file_root` is not there.
    """
    if not file_root:
        raise FetchError(
            IngestReason.FILE_NOT_ALLOWED, "ingest.file_root is empty: file URLs are refused"
        )
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise FetchError(IngestReason.FILE_NOT_ALLOWED, "a file URL names no host: file:///path")
    root = Path(file_root).resolve()
    if not root.is_dir():
        raise WorldError(
            f"ingest: {file_root} is no folder: set ingest.file_root to the one that the images of "
            "file:/// URLs lie in, and start it again"
        )
    try:
        name = os.fsdecode(unquote_to_bytes(parts.path)).lstrip("/")
        path = (root / name).resolve()
        if not path.is_relative_to(root) and not _is_promised(path, name, url):
            raise FetchError(
                IngestReason.FILE_NOT_ALLOWED,
                "the path leaves ingest.file_root; a link that leads out is followed only for "
                "pictures that import_coco has read",
            )
        mode = path.stat().st_mode
    except (OSError, ValueError, RuntimeError) as error:  # also NUL characters, loops of links
        raise FetchError(IngestReason.FILE_MISSING, _why_missing(error)) from None
    if not stat.S_ISREG(mode):
        raise FetchError(IngestReason.FILE_NOT_ALLOWED, "not a regular file")
    return path


def _is_promised(path: Path, name: str, url: str) -> bool:
    """Whether a file outside the root is behind a link below it and is what the URL promises."""
    promise = promised_sha256(url)
    if not promise or ".." in PurePosixPath(name).parts or not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == promise


def _why_missing(error: Exception) -> str:
    is_loop = isinstance(error, RuntimeError) or getattr(error, "errno", 0) == errno.ELOOP
    return "the path is a loop of links" if is_loop else "no such file below ingest.file_root"
