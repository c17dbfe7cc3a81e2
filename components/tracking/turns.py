"""Whose turn it is to move a model's aliases: a lock file, or the open entries of a server's log.

Clocks of other machines are not believed: how long an entry has been open counts from when this
process first saw it, by its own clock that nobody sets. On the machine that opened it a dead
process is seen at once.
"""

import fcntl
import getpass
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.kernel.errors import BusyError

LEASE_S = 300
WAIT_S = 400  # more than a lease: who waits for a dead process repairs what it left
LOCK_POLL_S, SERVER_POLL_S = 0.1, 5.0
USER_TAG, HOLDER_TAG = "mlflow.user", "pixclip.holder"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
START_FIELD = 19  # of /proc/<pid>/stat behind the name, which may hold spaces: the starting time


class Sightings:
    """Since when this process has seen the open entries of others."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def age_s(self, run: Any) -> float:
        """For how long an entry has been seen open."""
        now = time.monotonic()
        return now - self._since.setdefault(run.info.run_id, now)

    def is_dead(self, run: Any) -> bool:
        """Whether its process is dead, or silent for so long that it counts as dead."""
        age_s = self.age_s(run)
        return age_s >= LEASE_S or is_gone(run.data.tags.get(HOLDER_TAG, ""))

    def wait_for(self, open_entries: Callable[[], Sequence[Any]]) -> None:
        """Wait until no process that may live has an open entry, but not for ever."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            seen = [self.is_dead(run) for run in open_entries()]  # each is seen from now on
            if all(seen):
                return
            time.sleep(SERVER_POLL_S)


def identity() -> dict[str, str]:
    """Who opens an entry, as its tags: for people, and for processes on the same machine."""
    return {USER_TAG: user_name(), HOLDER_TAG: _holder(os.getpid())}


def user_name() -> str:
    """Who this is; in a container often nobody that it has a name for."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # OSError since Python 3.13
        return f"uid {os.getuid()}"


def is_gone(holder: str) -> bool:
    """Whether the process of a tag was of this machine and lives no more; False if unknown."""
    parts = holder.split()
    if len(parts) != 4 or parts[:2] != _machine() or not parts[2].isdecimal():
        return False
    return _started(int(parts[2])) != parts[3]


def _holder(pid: int) -> str:
    return " ".join([*_machine(), str(pid), _started(pid)])


def _machine() -> list[str]:
    """Where a process number means something: this start of this machine, in this container."""
    try:
        return [BOOT_ID.read_text(encoding="utf-8").strip(), os.readlink("/proc/self/ns/pid")]
    except OSError:  # no Linux
        return []


def _started(pid: int) -> str:
    """When a process started, so that a later one of the same number is not taken for it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    fields = stat.rpartition(b")")[2].split()
    return "" if fields[0] in (b"Z", b"X") else fields[START_FIELD].decode()


@contextmanager
def lock_file(path: Path, what: str) -> Iterator[None]:
    """Hold a lock that dies with its holder.

    Raises:
        BusyError: somebody else has held it for very long.
    """
    with path.open("a", encoding="utf-8") as lock:
        deadline = time.monotonic() + WAIT_S
        while not _is_taken(lock):
            if time.monotonic() > deadline:
                raise BusyError(f"{what} has been under way for {WAIT_S} s; wait for it to end")
            time.sleep(LOCK_POLL_S)
        yield


def _is_taken(lock: Any) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
