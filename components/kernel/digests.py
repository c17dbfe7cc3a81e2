"""Digests of files and folders, read on several threads: hashing is bound by the processor."""

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from components.kernel.tables import WORK_FOLDER

RECEIPT_NAME = "_receipt.json"
MAX_HASHED_BYTES = 2**30  # of an input without a receipt: hashing takes a second or two
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
    return sha256_text("\n".join(f"{name} {digest}" for name, digest in sorted(files.items())))


def file_digests(path: Path) -> dict[str, str]:
    """sha256 of every file of an artifact by relative path, without receipt and unfinished work."""
    if path.is_file():
        return {path.name: file_sha256(path)}
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file()
        and file.name != RECEIPT_NAME
        and file.relative_to(path).parts[0] != WORK_FOLDER
    ]
    names = [str(file.relative_to(path)) for file in files]
    return dict(zip(names, sha256_of_files(files), strict=True))


def num_bytes_of(path: Path) -> int:
    """The bytes of a file, or of all files below a folder."""
    return sum(file.stat().st_size for file in _files(path))


def digest_of_stats(path: Path) -> str:
    """A digest of names, sizes and times: for what is too large to read."""
    stats = {str(file.relative_to(path)): file.stat() for file in _files(path)}
    return digest_of_files(
        {name: f"{stat.st_size} {stat.st_mtime_ns}" for name, stat in stats.items()}
    )


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
