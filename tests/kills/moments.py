"""When and whom to kill: at any time, before a change of a file, while a lock is there, a child."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tests.kills.chain import Task
from tests.kills.processes import Command, Real, descendants, kill_group, name_of
from tests.kills.world import TIMEOUT_S, World

# The whole group at a time drawn from the step's duration; right before a change of a file; while
# a lock or journal of ours, Git's, DVC's or SQLite's is there; a child alone, at a time.
TIME, CHANGE, LOCK, CHILD = "time", "change", "lock", "child"
# The same as `time`, started as people do, with all its imports.
REAL = "command"
STARTUP_S = 4.0
LOCKS = ("*.lock", "*-journal", "*.publishing.json", "*.partial", ".*.making-*")
LOCKED_FOLDERS = ("", "mlflow", "images", "repository/.git", "repository/.git/refs/heads",
                  "repository/.dvc/tmp", "repository/.dvc/cache")  # fmt: skip
IGNORED_LOCKS = ("dvc.*", "rwlock.lock", ".grit.lock")  # DVC keeps its own for good
POLL_S = 0.002
WITH_CHILDREN = {"publish", "resolve_data", "adapt_text", "train"}
WITH_FOREIGN_LOCKS = {"publish", "register", "promote", "rollback", "train", "adapt_text"}


@dataclass(frozen=True)
class Kill:
    """A kill, and what it met."""

    kind: str
    detail: str
    hit: bool  # the step ran when it came
    is_done: bool = False  # the step came to a good end, before the kill or in spite of it


def kinds_for(task: Task) -> list[str]:
    """The kinds of kills that make sense for a task."""
    kinds = [TIME, CHANGE, CHANGE, REAL]
    kinds += [LOCK, LOCK] if task.step in WITH_FOREIGN_LOCKS else []
    kinds += [CHILD, CHILD] if task.step in WITH_CHILDREN else []
    return kinds


def live_and_die(
    world: World, task: Task, command: Command, kind: str, draw: random.Random
) -> Kill:
    """Start a task, kill it, and wait until it is gone."""
    clean = world.clean[task.name]
    if kind == CHANGE:
        die_at = draw.randint(1, max(1, clean.num_changes))
        end = world.warm.start(command, die_at).wait(TIMEOUT_S)
        is_done = end is not None and end.code == 0
        return Kill(kind, f"change {die_at}", not is_done, is_done)
    if kind == REAL:
        process: Real = Real(command, world.warm.environment)
        after_s = draw.uniform(0, clean.duration_s + STARTUP_S)
    else:
        process = world.warm.start(command)  # type: ignore[assignment]
        after_s = draw.uniform(0, clean.duration_s)
    if kind == LOCK:
        skipped = draw.choice((0, 0, 1, 3))
        detail = _kill_at_lock(process, command.folder, skipped)
    else:
        detail = f"{after_s:.2f} s"
        if process.wait(after_s) is None:
            detail += _kill_child(process.pid, draw) if kind == CHILD else _kill_all(process.pid)
    end = process.wait(TIMEOUT_S)
    if end is None:
        kill_group(process.pid)
        return Kill(kind, f"{detail}: hangs for {TIMEOUT_S} s", hit=True)
    return Kill(kind, detail, bool(end.code) or kind == CHILD, end.code == 0)


def _kill_all(pid: int) -> str:
    kill_group(pid)
    return ""


def _kill_child(pid: int, draw: random.Random) -> str:
    """Kill one process that the step started, or the step where there is none."""
    children = descendants(pid)
    if not children:
        return _kill_all(pid)
    child = draw.choice(children)
    name = name_of(child)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return f": {name}"


def _kill_at_lock(process: Real, folder: Path, skipped: int) -> str:
    """Kill the group while a lock or journal is there, after some others were let pass."""
    passed: set[str] = set()
    while process.wait(0) is None:
        for name in _locks(folder):
            if name not in passed and len(passed) >= skipped:
                kill_group(process.pid)
                return name
            passed.add(name)
        time.sleep(POLL_S)
    return "no lock was met"


def _locks(folder: Path) -> Iterator[str]:
    for place in LOCKED_FOLDERS:
        with contextlib.suppress(OSError):
            for name in os.listdir(folder / place):
                if any(fnmatch(name, pattern) for pattern in LOCKS) and not (
                    any(fnmatch(name, pattern) for pattern in IGNORED_LOCKS) or _is_ours(name)
                ):
                    yield f"{place}/{name}" if place else name


def _is_ours(name: str) -> bool:
    """Whether this is the lock of `only_run`, which is there all the time."""
    return name.startswith(".") and name.endswith(".lock")
