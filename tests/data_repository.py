"""A data set, and a Git and DVC repository and a storage that hold a version of it."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from components.data.publish.repository import DataRepository
from components.data.publish.storage import Remote

SHARD = b"shard" * 1000
REMOTE = Remote("../../storage")
FOLDERS = ("longgrit", "repository", "storage")


def write_data(root: Path, files: Mapping[str, bytes]) -> Path:
    """The data set `longgrit` below a folder."""
    for name, content in files.items():
        path = root / "longgrit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root / "longgrit"


def publish_data(root: Path) -> None:
    """Put the data set into the repository and the storage beside it."""
    DataRepository(root / "repository", REMOTE).publish(root / "longgrit", "longgrit", "Publish")


def copied(template: Path, folder: Path) -> Path:
    """Copies of all three, which a test may harm."""
    for name in FOLDERS:
        shutil.copytree(template / name, folder / name)
    return folder


def object_of(folder: Path, content: bytes = SHARD) -> Path:
    """The file of a cache or a storage that holds a content."""
    (found,) = [p for p in folder.rglob("files/md5/*/*") if p.read_bytes() == content]
    return found
