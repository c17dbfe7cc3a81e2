"""Which of this machine's Airflow processes are alive, and what the dead ones left behind.

Whatever the laptop runner starts holds a file of its own with a lock on it, which ends with the
process, however it ends. A file that nobody holds was left by a process that was killed.
"""

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = "live"
STOP_TIMEOUT_S = 20
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Mark:
    """What a process is doing: a run of a DAG, the server with its process group, or a command."""

    kind: str  # run, serve, command
    pid: int = 0
    pid_began: int = 0  # in clock ticks since the boot
    began_s: float = 0
    dag_id: str = ""
    logical_date: str = ""
    group: int = 0
    group_began: int = 0
    boot: str = ""


class LiveFile:
    """The file of a living process; `descriptor` may be handed on to a child."""

    def __init__(self, folder: Path, mark: Mark) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        pid = os.getpid()
        facts = {"pid": pid, "pid_began": _began(pid), "began_s": time.time(), "boot": _boot()}
        self._mark = Mark(**{**asdict(mark), **facts})
        draft = folder / f".{os.getpid()}-{time.monotonic_ns()}"
        self.path = draft.with_name(f"{draft.name[1:]}.json")
        self.descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        self._write()
        draft.rename(self.path)  # nobody sees it without its lock

    def lead(self, group: int) -> None:
        """Note the process group that ends with this process."""
        facts = {"group": group, "group_began": _began(group)}
        self._mark = Mark(**{**asdict(self._mark), **facts})
        self._write()

    def close(self) -> None:
        """The process has done its work."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)

    def _write(self) -> None:
        text = json.dumps(asdict(self._mark)).encode()
        os.pwrite(self.descriptor, text, 0)
        os.ftruncate(self.descriptor, len(text))


@contextlib.contextmanager
def alive(folder: Path, mark: Mark) -> Iterator[LiveFile]:
    """Hold a file that says what this process does."""
    file = LiveFile(folder, mark)
    try:
        yield file
    finally:
        file.close()


def living(folder: Path) -> list[Mark]:
    """What lives now. Files of the dead are removed, after their process groups were ended."""
    marks = []
    for path in sorted(folder.glob("*.json")):
        try:
            with path.open(encoding="utf-8") as file:
                mark = _read(file.read())
                is_dead = _is_free(file.fileno()) or _ends(mark, file.fileno())
        except FileNotFoundError:  # it has just ended in good order
            continue
        if not is_dead:
            marks.append(mark)
            continue
        _end_what_is_left(mark)
        path.unlink(missing_ok=True)
    return marks


def end_group(group: int) -> None:
    """End a process group: by SIGTERM, and what does not listen by SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_TIMEOUT_S
        try:
            os.killpg(group, number)
            while time.monotonic() < deadline:
                os.killpg(group, 0)
                time.sleep(0.1)
        except ProcessLookupError:
            return


def _ends(mark: Mark, descriptor: int) -> bool:
    """Whether what holds a file is the dying child of a dead process, and ends in time."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while mark.boot == _boot() and _began(mark.pid) != mark.pid_began:
        if _is_free(descriptor):
            return True
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return False


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(text: str) -> Mark:
    try:
        return Mark(**json.loads(text))
    except (ValueError, TypeError):  # killed while it was written, or of another version
        return Mark("command")


def _end_what_is_left(mark: Mark) -> None:
    """End the process group of a dead process, if it is still that group and not a newer one."""
    if not mark.group or mark.boot != _boot():
        return
    leader = _began(mark.group)
    # A group keeps its number for as long as it has a member: nobody else's can have it.
    if leader in (0, mark.group_began):
        with contextlib.suppress(PermissionError):
            end_group(mark.group)


def _began(pid: int) -> int:
    """When a process began, in clock ticks since the boot; 0 if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def _boot() -> str:
    try:
        return BOOT_ID.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
