"""Files that appear whole or not at all, and files that get a second name."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A hidden path beside a file, to write to; it takes the file's name when the block is done.

    After a kill, an error or on a full disk the old file is there, or none. What is `durable` is on
    the disk, name and content, when this returns.
    """
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    if durable:
        flush(partial)
    partial.replace(path)
    if durable:
        flush(path.parent)


def write_whole(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a text as `written_whole` does."""
    with written_whole(path, durable=durable) as partial:
        partial.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Bring a file or a folder to the disk: a rename is worth nothing if its content is not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_or_copy(source: str, target: str) -> None:
    """A hard link of a file, links followed, or a copy on another file system.

    Raises:
        FileExistsError: there is a target; it may be a link itself, and is never written through.
    """
    try:
        os.link(os.path.realpath(source), target)  # else a link to a link would be made
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)
