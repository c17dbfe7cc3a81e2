"""How `kfp.local` starts a step's process here: forked from the run's warm process, or anew.

kfp itself writes the path of Python into a shell script without quotes, and over every "python3"
that it finds, also in the paths of a run; and it stops at output that is not UTF-8.

Apart from `local.py`, which DAG files import: kfp takes a second to import.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kfp.local import status, subprocess_task_handler

from components.core.process import sharing_cores
from components.orchestration.telling import StepWords
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
