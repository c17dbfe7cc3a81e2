"""Start a step, wait for it, and kill it or one of its children."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARK = "PIXCLIP_KILLS"  # in the environment of whatever a step starts
QUIET = {
    "GX_ANALYTICS_ENABLED": "false", "DVC_NO_ANALYTICS": "true", "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1", "PIXCLIP_HOME": str(ROOT), "PYTHONUTF8": "1",
}  # fmt: skip


@dataclass(frozen=True)
class End:
    """How a process ended."""

    code: int
    num_changes: int = 0  # how often it was about to change a file, as far as that is known


@dataclass(frozen=True)
class Command:
    """What is started: the command line's arguments, and where."""

    argv: Sequence[str]
    folder: Path  # becomes the working folder; what is changed below it counts
    log: Path
    environment: Mapping[str, str]


class Warm:
    """A process that has imported everything and forks the steps' processes."""

    def __init__(self) -> None:
        environment = {**os.environ, **QUIET}
        paths = [str(ROOT), str(ROOT / "model"), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        self.environment = environment
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kills.warm"], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        assert self._answers.get(timeout=120) == "ready"

    def __enter__(self) -> "Warm":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._answers.put(line.strip())

    def start(self, command: Command, die_at: int = 0) -> "Forked":
        """Fork a step; `die_at` kills it right before its so many-th change of a file."""
        request = {
            "argv": list(command.argv), "folder": str(command.folder), "log": str(command.log),
            "environment": dict(command.environment), "die_at": die_at,
        }  # fmt: skip
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Forked(int(self._answers.get(timeout=60)), self._answers)


class Forked:
    """A step that was forked."""

    def __init__(self, pid: int, answers: "queue.Queue[str]") -> None:
        self.pid, self._answers, self._end = pid, answers, None

    def wait(self, timeout_s: float) -> End | None:
        """How it ended; None if it still runs after this time."""
        if self._end is None:
            try:
                self._end = End(**json.loads(self._answers.get(timeout=timeout_s)))
            except queue.Empty:
                return None
        return self._end


class Real:
    """A step started as a person does: `pixclip <step>`."""

    def __init__(self, command: Command, environment: Mapping[str, str]) -> None:
        with command.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "components.cli", *command.argv],
                cwd=command.folder, env={**environment, **command.environment}, stdout=log,
                stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid

    def wait(self, timeout_s: float) -> End | None:
        """How it ended; None if it still runs after this time."""
        try:
            return End(self._process.wait(timeout_s))
        except subprocess.TimeoutExpired:
            return None


def kill_group(pid: int) -> None:
    """Kill a step and all of its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_bytes().rpartition(b")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, left = [], [pid]
    while left:
        left += (below := children.get(left.pop(), []))
        found += below
    return found


def name_of(pid: int) -> str:
    """The program that a process runs, for the table."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        if "-m" in words[:-1]:
            return words[words.index("-m") + 1]
        return Path(words[0]).name
    return "?"


def marked(mark: str) -> list[int]:
    """The processes that carry a mark in their environment."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
