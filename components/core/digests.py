"""Digests of files and folders, read on several threads: hashing is bound by the processor.

`PIXCLIP_VERIFY_GIB` (an environment variable, 200 unless set) bounds how much of one artifact or
source is read for it.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from components.core.errors import SettingsError
from components.core.tables import WORK_FOLDER
from pixclip.data.layout import RECEIPT_NAME as RECEIPT_NAME

NOTE_PREFIX = ".owner-of-"  # of the notes that say whose a published file is
VARIABLE, DEFAULT_GIB = "PIXCLIP_VERIFY_GIB", 200.0
GIB = 2**30
SETTLED_S = 2.0  # a file that changed within this time may change again under the same times


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, as hex; of an unchanged file it is reckoned once in a process."""
    stat = path.stat()
    if time.time() - max(stat.st_mtime, stat.st_ctime) < SETTLED_S:
        return _sha256(path)
    return _settled_sha256(
        path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
    )


@lru_cache(maxsize=65_536)
def _settled_sha256(path: Path, *_stat: int) -> str:
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """sha256 of a text, as hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sha256_of_files(paths: Iterable[Path]) -> list[str]:
    """sha256 of each file, in order."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(file_sha256, paths))


def digest_of_files(files: Mapping[str, str]) -> str:
    """One digest of a listing: relative path -> sha256."""
    return sha256_text(json.dumps(dict(files), sort_keys=True))


def file_digests(path: Path) -> dict[str, str]:
    """sha256 of every file of an artifact by relative path, without receipt and unfinished work."""
    if path.is_file():
        return {path.name: file_sha256(path)}
    names = names_below(path)
    digests = sha256_of_files(path / name for name in names)
    return dict(zip(map(str, names), digests, strict=True))


def names_below(folder: Path) -> list[Path]:
    """The files of an artifact as relative paths, without receipts, notes and unfinished work."""
    names = (file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file())
    return [name for name in names if _is_content(name)]


def _is_content(name: Path) -> bool:
    is_told = name.name == RECEIPT_NAME or name.name.startswith(NOTE_PREFIX)
    return not is_told and name.parts[0] != WORK_FOLDER


def limit_bytes() -> float:
    """How much of one artifact or source is read to know its content.

    Raises:
        SettingsError: the variable holds no number of GiB.
    """
    text = os.environ.get(VARIABLE, "") or str(DEFAULT_GIB)
    try:
        limit = float(text) * GIB
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise SettingsError(f"{VARIABLE} must be a number of GiB, 0 or more, got {text!r}")
    return limit


def is_too_large(paths: Iterable[Path]) -> bool:
    """Whether these files hold more than is read: then names, sizes and times must do."""
    return sum(path.stat().st_size for path in paths) > limit_bytes()


def digest_by_stats(folder: Path, names: Iterable[Path]) -> str:
    """A digest of names, sizes and times: for what is too large to read."""
    stats = {str(name): (folder / name).stat() for name in names}
    return digest_of_files(
        {name: f"{stat.st_size} {stat.st_mtime_ns}" for name, stat in stats.items()}
    )


def num_bytes_of(path: Path) -> int:
    """The bytes of a file, or of all files below a folder."""
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    return sum(file.stat().st_size for file in files)
