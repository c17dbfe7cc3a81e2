"""Files that come into being: hard links, copies, and files that appear whole."""

import fcntl
import os
import shutil
from pathlib import Path

from pixclip.files import link_or_copy, write_whole, written_whole

__all__ = ["copy_file", "link_or_copy", "write_whole", "written_whole"]

FICLONE = 0x40049409  # Linux: share a file's blocks until one of the two is written


def copy_file(source: Path, target: Path) -> None:
    """A copy with a mode of its own, as the umask says; a clone where the file system has them.

    Raises:
        OSError: the source cannot be read, or changed meanwhile; there is no room.
    """
    with source.open("rb") as read, target.open("wb") as write:
        before = os.fstat(read.fileno())
        try:
            fcntl.ioctl(write.fileno(), FICLONE, read.fileno())
        except OSError:
            shutil.copyfileobj(read, write, 1 << 20)
            write.flush()
        after = os.stat(source)
        is_same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        if not is_same or os.fstat(write.fileno()).st_size != before.st_size:
            raise OSError(0, "it changed while it was copied", str(source))
