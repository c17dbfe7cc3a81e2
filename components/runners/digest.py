"""What matters of the log of `airflow dags test`: tasks, their time, and what the steps say."""

import re
import time
from collections.abc import Callable

STARTED = re.compile(r"\[DAG TEST\] starting task_id=(\S+) map_index=(-?\d+)")
ENDED = re.compile(r"\[DAG TEST\] end task")
FAILED = re.compile(r"AirflowFailException: (.*)")
UP_TO_DATE = re.compile(r"\] (\S+ is up to date)")
STEP_LOG = re.compile(r"^\[KFP Executor \S+ \S+ (\w+)\]: (.*)")
# What kfp says of itself: the artifacts a task takes and makes, which take several lines, and its
# executor's preparations.
ARTIFACT = re.compile(r"\w+: (Artifact|Dataset|Metrics|Model)\( name=")
PREPARATION = re.compile(r"KFP component|executor output|Looking for component|temporary directory")
# A library's warning, which is followed by the line of code that it is about.
LIBRARY_WARNING = re.compile(r"site-packages/\S+:\d+: \w*Warning: ")
# A progress bar, which a terminal would draw over and over in one line.
BAR = re.compile(r"\d+%\|")
BAR_INTERVAL_S = 10.0
# kfp indents the output of a component.
INDENT = "    "


class LogDigest:
    """Takes the log line by line and says the lines that matter, without those of the runners."""

    def __init__(self, say: Callable[[str], None], now: Callable[[], float] = time.monotonic):
        self._say, self._now = say, now
        self.has_told_failure = False
        self._started = now()
        self._bar_shown = -BAR_INTERVAL_S
        self._is_dump = False  # inside the JSON that kfp prints of its input
        self._is_artifact = False
        self._is_warning = False  # of a library: a line of code follows

    def add(self, line: str) -> None:
        """Take one line of the log."""
        if line.startswith(INDENT):
            self._add_output(line.removeprefix(INDENT))
        elif match := STARTED.search(line):
            task, index = match.groups()
            self._started = self._now()
            self._say(f"{task}[{index}]" if index != "-1" else task)
        elif ENDED.search(line):
            self._say(f"{INDENT}{self._now() - self._started:.1f} s")
        elif match := UP_TO_DATE.search(line) or FAILED.search(line):
            self.has_told_failure |= match.re is FAILED
            self._say(INDENT + match.group(1))

    def _add_output(self, line: str) -> None:
        """A line that a step has printed, or that kfp's executor says of itself."""
        if self._is_dump:
            self._is_dump = not line.startswith("}")
            return
        if self._is_artifact or ARTIFACT.match(line):
            self._is_artifact = not line.endswith(" )")
            return
        match = STEP_LOG.search(line)
        if match and match.group(2).startswith("Got executor_input"):
            self._is_dump = True
        elif match and not PREPARATION.search(line):
            self._say(INDENT + match.group(2))
        elif not match and line.strip() and self._is_worth_saying(line):
            self._say(INDENT + line)

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
