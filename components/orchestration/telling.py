"""What a run shows of its tasks: their names and time, what their steps say, and why one failed.

The child of a runner writes it to a pipe, so that nobody has to look for it in the logs of Airflow
and kfp.
"""

import os
import re
import time
from collections.abc import Callable, Mapping

INDENT = "    "
MAX_COUNTS = 6
FAILURE_TOLD = 3  # exit code: a task failed, and why was told
# How `executor.py` begins the lines of a step's log.
LOGGED = re.compile(r"(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]+: ")
# A library's warning, which is followed by the line of code that it is about.
LIBRARY_WARNING = re.compile(r"site-packages/\S+:\d+: \w*Warning: ")
# A progress bar, which a terminal would draw over and over in one line.
BAR = re.compile(r"\d+%\|")
BAR_INTERVAL_S = 10.0

_pipes: list[int] = []


def tell_to(pipe: int) -> None:
    """Tell whoever reads this pipe."""
    _pipes[:] = [pipe]


def tell(line: str) -> None:
    """Show a line to the person who started the run, if there is one."""
    for pipe in _pipes:
        os.write(pipe, f"{line}\n".encode(errors="backslashreplace"))


def tell_counts(metrics: Mapping[str, int | float]) -> None:
    """Show a step's first numbers, without those of single reasons."""
    shown = [(name, value) for name, value in metrics.items() if "." not in name][:MAX_COUNTS]
    texts = (
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in shown
    )
    tell(INDENT + ", ".join(texts))


class StepWords:
    """Takes a step's output line by line and tells what the step says, not its libraries."""

    def __init__(
        self, say: Callable[[str], None] = tell, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._now = say, now
        self._bar_shown = -BAR_INTERVAL_S
        self._is_warning = False  # of a library: a line of code follows

    def add(self, line: str) -> None:
        """Take one line."""
        if line.strip() and self._is_worth_saying(line):
            self._say(INDENT + LOGGED.sub("", line, count=1))

    def _is_worth_saying(self, line: str) -> bool:
        """Whether it is no library's warning and no bar that was shown a moment ago."""
        was_warning, self._is_warning = self._is_warning, bool(LIBRARY_WARNING.search(line))
        if was_warning or self._is_warning:
            return False
        if not BAR.search(line) or "100%|" in line:
            return True
        if self._now() - self._bar_shown < BAR_INTERVAL_S:
            return False
        self._bar_shown = self._now()
        return True
