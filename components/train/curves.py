"""The curves of a training: followed into MLflow while it runs, and written as CSV at its end."""

import csv
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.kernel.files import write_whole
from components.tracking.runs import Run
from components.tracking.store import TrackingError
from pixclip.json_files import read_json_lines

log = logging.getLogger(__name__)

POLL_S = 5.0
Line = dict[str, float]


def read_steps(path: Path, after: int = 0) -> list[Line]:
    """The whole lines of `steps.jsonl` after a step; none if there is no file yet."""
    fields = {"step": int, "loss": float}
    return [step for step in read_json_lines(path, fields) if step["step"] > after]


def write_csv(path: Path, steps: list[Line]) -> None:
    """One row a step."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(steps[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(steps)


class Followed:
    """A `steps.jsonl` whose lines go to a run, each once, also over restarts of the training."""

    def __init__(self, steps: Path, mark: Path, run: Run) -> None:
        self._steps, self._mark, self._run = steps, mark, run
        told = mark.read_bytes() if mark.exists() else b""
        self._last = int(told) if told.isdigit() else 0

    def log_new(self) -> None:
        """Send what has come.

        Raises:
            TrackingError: MLflow cannot be reached; nothing is lost, the next call sends it.
        """
        for line in read_steps(self._steps, self._last):
            self._last = int(line["step"])
            self._run.log(self._last, _metrics(line))
        self._run.flush()
        write_whole(self._mark, str(self._last))


def _metrics(line: Line) -> dict[str, float]:
    return {name: value for name, value in line.items() if name != "step"}


@contextmanager
def following(followed: Followed) -> Iterator[None]:
    """Log new lines every few seconds; MLflow may be away for a while without stopping a training.

    Raises:
        TrackingError: MLflow cannot be reached at the end either.
    """
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(POLL_S):
            try:
                followed.log_new()
            except TrackingError as error:
                log.warning("the curves wait for MLflow: %s", error)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        followed.log_new()


def summary(steps: list[Line]) -> dict[str, Any]:
    """How a training ended and how fast it was, from its curves."""
    last, steady = steps[-1], steps[len(steps) // 10 :]  # the first steps warm caches up
    seconds = sum(1 / step["samples_per_s"] for step in steady)
    waiting = sum(step["data_wait_share"] / step["samples_per_s"] for step in steady)
    return {
        "num_steps": int(last["step"]),
        **{name: value for name, value in last.items() if name.startswith("loss")},
        "samples_per_s": round(len(steady) / seconds, 2),
        "data_wait_share": round(waiting / seconds, 4),
        "memory_gb": max(step["memory_gb"] for step in steps),
    }
