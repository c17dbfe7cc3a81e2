"""What matters of the log of a local pipeline run: tasks, their time, what the steps say."""

import re
import time
from collections.abc import Callable

from components.runners.digest import INDENT, LogDigest

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
STARTED = re.compile(r"INFO - Executing task '(\S+)'")
ENDED = re.compile(r"INFO - Task '\S+' finished with status (\w+)")
FAILED = re.compile(r"ERROR - Task '(\S+)' finished with status FAILURE")
CACHED = re.compile(r"Task (\S+) cache hit")
SKIPPED = re.compile(r"Skipping (?:conditional )?task (\S+)(?: \(|:)")
STEP_ERROR = re.compile(r"components\.kernel\.errors\.(\w+: .*)|^(\w+Error: .*)")


class PipelineDigest(LogDigest):
    """Takes kfp's log line by line and says the lines that matter."""

    def __init__(self, say: Callable[[str], None], now: Callable[[], float] = time.monotonic):
        super().__init__(say, now)
        self._error = ""
        self.failure = ""  # which task failed and why, as the end of a sentence

    def add(self, line: str) -> None:
        """Take one line of the log."""
        line = COLOUR.sub("", line)
        if match := STARTED.search(line):
            self._started = self._now()
            self._say(match.group(1))
        elif match := FAILED.search(line):
            self._say(f"{INDENT}failed after {self._now() - self._started:.1f} s")
            self.failure = f" at {match.group(1)}: {self._error or 'it ended without an outcome'}"
        elif ENDED.search(line):
            self._say(f"{INDENT}{self._now() - self._started:.1f} s")
        elif match := CACHED.search(line):
            self._say(f"{match.group(1)} (cached)")
        elif match := SKIPPED.search(line):
            self._say(f"{match.group(1)} (skipped)")
        else:
            self._keep_error(line)
            super().add(line)

    def _keep_error(self, line: str) -> None:
        if match := STEP_ERROR.search(line.strip()):
            self._error = match.group(1) or match.group(2)
