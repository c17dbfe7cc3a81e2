"""How `kfp.local` starts the processes of steps, and what a run shows of them.

A process is forked from the run's warm process, or begun anew. Names and times of tasks, what steps
say and why one failed go to the caller through a pipe.

kfp itself writes the path of Python into a shell script without quotes, and over every "python3"
that it finds, also in the paths of a run; and it stops at output that is not UTF-8.

Apart from `local.py`, which DAG files import: kfp takes a second to import.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kfp.local import status, subprocess_task_handler

from components.core.process import sharing_cores
from components.orchestration.warm import Job, forked

EXECUTOR = "components.orchestration.executor"
SOURCE = 3  # its place in `sh -ec SCRIPT SOURCE …`; the script writes it to a file for the executor
# Of the environment: "_KFP_RUNTIME" spares the executor the compiler of pipelines.
OWN = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8", "_KFP_RUNTIME": "true"}


class StepProcess(subprocess_task_handler.SubprocessTaskHandler):
    """Runs a task in a process of this environment."""

    def run(self) -> Any:
        """Run the task, show its output, and give its status."""
        with tempfile.TemporaryDirectory(prefix="pixclip-component-") as folder:
            return self._run(self.job(Path(folder)))

    def job(self, folder: Path) -> Job:
        """The executor on the component's source, which is written to a file in `folder`."""
        source, *arguments = self.full_command[SOURCE:]
        module = folder / "ephemeral_component.py"
        module.write_text(source, encoding="utf-8")
        return Job(
            step=value_of("--function_to_execute", arguments),
            module=EXECUTOR,
            arguments=["--component_module_path", str(module), *arguments],
            folder=str(Path.cwd()),
            environment=sharing_cores({**os.environ, **self.env_vars, **OWN}),
        )

    def _run(self, job: Job) -> Any:
        with forked(job) as process:
            if process:
                return _show(process.output, process.wait)
        with subprocess.Popen(
            [sys.executable, "-m", job.module, *job.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=job.environment,
        ) as started:
            assert started.stdout
            return _show(started.stdout, started.wait)


def _show(output: Iterable[str], wait: Callable[[], int]) -> Any:
    words = StepWords()
    for line in output:
        print(line, end="")  # noqa: T201  # kfp indents what is printed
        words.add(line.rstrip())
    print("\n")  # noqa: T201
    return status.Status.FAILURE if wait() else status.Status.SUCCESS


def value_of(option: str, arguments: list[str]) -> str:
    """The value of an option of the executor."""
    return arguments[arguments.index(option) + 1]


def start_steps_here(handler: type[StepProcess] = StepProcess) -> None:
    """Let kfp's local runner start its tasks by this handler."""
    subprocess_task_handler.SubprocessTaskHandler = handler


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
