"""Files that come into being: hard links, copies, and texts that appear whole."""

import os
import shutil
from pathlib import Path


def link_or_copy(source: str, target: str) -> None:
    """A hard link of a file, or a copy on another file system.

    Raises:
        FileExistsError: there is a target; it may be a link itself, and is never written through.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copy2(source, target)


def write_whole(path: Path, text: str) -> None:
    """Write a text by rename: a kill or a full disk leaves the old file, or none."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
