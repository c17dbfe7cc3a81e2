"""Fetch file:/// URLs, inside one folder only."""

import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from components.ingest.body import Body
from components.ingest.failures import FetchError

PIECE_BYTES = 2**20


def read_file_url(url: str, file_root: str, max_bytes: int) -> bytes:
    """The bytes of `file:///path`, the path being relative to `file_root`.

    Raises:
        FetchError: `file_not_allowed`, `file_missing`, `too_large`, `not_an_image`.
    """
    path = resolve_file_url(url, file_root)
    try:
        with path.open("rb") as file, Body(max_bytes) as body:
            while piece := file.read(PIECE_BYTES):
                body.write(piece)
            return body.value()
    except OSError:
        raise FetchError("file_missing", "the file cannot be read") from None


def resolve_file_url(url: str, file_root: str) -> Path:
    """The regular file behind a URL; a path that leaves `file_root`, also by a link, is refused.

    Raises:
        FetchError: `file_not_allowed`, `file_missing`.
    """
    if not file_root:
        raise FetchError("file_not_allowed", "ingest.file_root is empty: file URLs are refused")
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise FetchError("file_not_allowed", "a file URL names no host: file:///path")
    root = Path(file_root).resolve()
    try:
        path = (root / unquote(parts.path).lstrip("/")).resolve()
        if not path.is_relative_to(root):
            raise FetchError("file_not_allowed", "the path leaves ingest.file_root")
        mode = path.stat().st_mode
    except (OSError, ValueError, RuntimeError):  # also NUL characters, loops of links
        raise FetchError("file_missing", "no such file below ingest.file_root") from None
    if not stat.S_ISREG(mode):
        raise FetchError("file_not_allowed", "not a regular file")
    return path
