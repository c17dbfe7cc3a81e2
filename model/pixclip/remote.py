"""Where checkpoints are: a folder here, or a store that fsspec reads (s3://, gs://, …)."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pixclip.checksums import CHECKSUMS_NAME, CheckpointError, parse_checksums, verify


def is_in_store(path_or_uri: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint is somewhere else, so that `local_folder` gives a copy of it."""
    place = os.fspath(path_or_uri)
    return "://" in place and not place.startswith("file://")


def local_folder(path_or_uri: str | os.PathLike[str], *, fetch_again: bool = False) -> Path:
    """The folder of a checkpoint; one in a store is fetched once into the cache.

    The cache is `$PIXCLIP_CACHE`, by default `~/.cache/pixclip`; a copy there is named by the
    checksums of its files, so it is never out of date. It may have been damaged since:
    `fetch_again` replaces it.

    Raises:
        CheckpointError: there is no checkpoint at the URI, or what arrived is damaged.
    """
    place = os.fspath(path_or_uri)
    if is_in_store(place):
        return _fetch(place, fetch_again)
    return Path(url2pathname(urlsplit(place).path) if place.startswith("file://") else place)


def _fetch(uri: str, fetch_again: bool) -> Path:
    from fsspec.core import url_to_fs

    store, root = url_to_fs(uri)
    try:
        content = store.cat_file(f"{root}/{CHECKSUMS_NAME}")
    except FileNotFoundError:
        raise CheckpointError(f"{uri} is no checkpoint: it has no {CHECKSUMS_NAME}") from None
    names = parse_checksums(content, uri)
    cache = Path(os.environ.get("PIXCLIP_CACHE") or Path.home() / ".cache" / "pixclip")
    cache.mkdir(parents=True, exist_ok=True)
    kept = cache / hashlib.sha256(content).hexdigest()[:32]
    if not fetch_again and _holds(kept / CHECKSUMS_NAME, content):
        return kept
    is_damaged = kept.is_dir()
    with tempfile.TemporaryDirectory(dir=cache, prefix=".draft-") as scratch:
        draft = Path(scratch) / "checkpoint"
        for name in names:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            store.get_file(f"{root}/{name}", str(draft / name))
        verify(draft, names)
        (draft / CHECKSUMS_NAME).write_bytes(content)
        if is_damaged:
            shutil.rmtree(kept)
        _keep(draft, kept)
    return kept


def _holds(file: Path, content: bytes) -> bool:
    return file.is_file() and file.read_bytes() == content


def _keep(draft: Path, kept: Path) -> None:
    try:
        draft.rename(kept)
    except OSError:
        if not kept.is_dir():  # else another process was faster
            raise
        shutil.rmtree(draft)
