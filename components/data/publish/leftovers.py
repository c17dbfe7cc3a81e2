"""Locks that a killed Git or DVC left behind: found, proven dead, removed and reported.

A lock is dead if no process has it open, no Git (or DVC) is at work in the repository, and it is
older than our own lock, which keeps our own kind out. Processes of other machines and containers
cannot be seen, so a young lock gets some seconds to go by itself. Where processes cannot be seen at
all (no /proc), nothing is removed, and Git's own message says what to do.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

MIN_AGE_S = 2.0
PROC = Path("/proc")
# Helpers of Git that stay for days and hold no lock.
DAEMONS = (b"fsmonitor--daemon", b"credential-cache--daemon")
LOCK_PATTERNS = (
    "*.lock", "refs/**/*.lock", "logs/**/*.lock", "info/*.lock", "objects/info/**/*.lock",
)  # fmt: skip


@dataclass(frozen=True)
class Process:
    """A process of this machine, as far as it can be seen."""

    pid: int
    uid: int
    name: str
    command: bytes  # words end with \0
    folder: str | None  # None: not to be seen
    files: frozenset[str]

    def is_git(self) -> bool:
        """Whether this is Git at work."""
        return self.name.startswith("git") and not any(word in self.command for word in DAEMONS)

    def is_dvc(self) -> bool:
        """Whether this is DVC."""
        words = self.command.split(b"\0")
        return any(word.rsplit(b"/", 1)[-1] == b"dvc" for word in words)

    def works_in(self, folder: str, owner: int) -> bool:
        """Whether it is at work in a folder, or may be: of others the folder cannot be seen."""
        if self.folder is None:
            return self.uid == owner
        inside = self.folder == folder or self.folder.startswith(f"{folder}{os.sep}")
        return inside or os.fsencode(folder) in self.command


def processes() -> list[Process] | None:
    """The processes that can be seen but this one; None if none can be."""
    if not (PROC / "self" / "fd").is_dir():
        return None
    pids = [int(path.name) for path in PROC.iterdir() if path.name.isdigit()]
    return [found for pid in pids if pid != os.getpid() for found in _process(PROC / str(pid))]


def _process(place: Path) -> Iterator[Process]:
    try:
        uid, name = place.stat().st_uid, (place / "comm").read_text("utf-8", "replace").strip()
        command = (place / "cmdline").read_bytes()
    except OSError:  # it has ended
        return
    try:
        folder: str | None = os.readlink(place / "cwd")
        links = [_link(path) for path in (place / "fd").iterdir()]
    except PermissionError:
        folder, links = None, []
    except OSError:
        return
    yield Process(int(place.name), uid, name, command, folder, frozenset(links))


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def git_folders(folder: Path) -> list[Path]:
    """Where Git keeps the repository at a folder: mostly `.git`; of a linked work tree two."""
    place = folder / ".git"
    if place.is_file():
        told = place.read_text(encoding="utf-8", errors="replace").removeprefix("gitdir:").strip()
        place = folder / told
    common = place / "commondir"
    if common.is_file():
        return [place, place / common.read_text(encoding="utf-8", errors="replace").strip()]
    return [place]


def remove_dead_locks(folder: Path, since: float) -> list[Path]:
    """Remove the locks of dead processes in a repository; gives those of living ones.

    Args:
        since: when we locked the repository for our own kind.
    """
    seen = processes()
    alive = []
    places = git_folders(folder)
    for path in sorted({path for place in places for p in LOCK_PATTERNS for path in place.glob(p)}):
        if seen is None or not _is_dead(path, folder, since):
            alive.append(path)
        else:
            log.warning("removed %s: the process that left it is gone", path)
            path.unlink(missing_ok=True)
    _repair_dvc(folder / ".dvc" / "tmp", seen)
    return [path for path in alive if path.exists()]


def _is_dead(path: Path, folder: Path, since: float) -> bool:
    try:
        before = path.stat()
        age = since - before.st_mtime
        if age < MIN_AGE_S:  # a clock ahead makes it no younger
            time.sleep(MIN_AGE_S - max(age, 0.0))
        after = path.stat()
    except FileNotFoundError:  # it went by itself
        return False
    is_same = (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    return is_same and not _holders(path, folder, after.st_uid)


def _holders(path: Path, folder: Path, owner: int) -> Sequence[Process]:
    real, places = os.path.realpath(path), [folder, *git_folders(folder)]
    works = [os.path.realpath(place) for place in places]
    return [
        process
        for process in processes() or ()
        if real in process.files
        or (process.is_git() and any(process.works_in(place, owner) for place in works))
    ]


def _repair_dvc(tmp: Path, seen: list[Process] | None) -> None:
    """Take away DVC's notes of readers and writers if they are cut off or speak of dead ones."""
    real = os.path.realpath(tmp.parent.parent)
    if seen is None or not tmp.is_dir():
        return
    if any(process.is_dvc() and process.works_in(real, tmp.stat().st_uid) for process in seen):
        return
    notes = tmp / "rwlock"
    if notes.is_file() and not _is_empty(notes):
        log.warning("removed %s: the DVC that left it is gone", notes)
        notes.unlink()
    for name in ("lock", "rwlock.lock"):
        path = tmp / name
        # Others are free once their process has ended; these are links (core.hardlink_lock).
        if path.is_file() and path.stat().st_nlink > 1:
            log.warning("removed %s: the DVC that left it is gone", path)
            path.unlink()


def _is_empty(notes: Path) -> bool:
    try:
        content = json.loads(notes.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and not any(content.values())
