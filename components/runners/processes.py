"""How `kfp.local` starts a step's process here: this environment's Python, wherever it lies.

kfp writes the path of Python into a shell script without quotes, and over every "python3" that it
finds, also in the paths of a run; and it stops at output that is not UTF-8.
"""

import os
import re
import shlex
import subprocess
import sys
from typing import Any

from kfp.local import status, subprocess_task_handler

from components.kernel.process import sharing_cores

UTF8 = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}  # the second wins over the first
SCRIPT = 2  # its place in `sh -ec SCRIPT …`
PYTHON = re.compile(r"(?<![\w./-])python3(?![\w./-])")


class StepProcess(subprocess_task_handler.SubprocessTaskHandler):
    """Runs a task in a process of this environment."""

    def run(self) -> Any:
        """Run the task, show its output, and give its status."""
        with subprocess.Popen(
            with_python(self.full_command, sys.executable),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=sharing_cores({**os.environ, **self.env_vars, **UTF8}),
        ) as process:
            assert process.stdout
            for line in process.stdout:
                print(line, end="")  # noqa: T201  # kfp indents what is printed
            print("\n")  # noqa: T201
        return status.Status.FAILURE if process.returncode else status.Status.SUCCESS


def with_python(command: list[str], python: str) -> list[str]:
    """A component's command with the path of Python in its script, and nothing else changed."""
    script = PYTHON.sub(lambda _: shlex.quote(python), command[SCRIPT])
    return [*command[:SCRIPT], script, *command[SCRIPT + 1 :]]


def start_steps_here() -> None:
    """Let kfp's local runner start its tasks as `StepProcess`."""
    subprocess_task_handler.SubprocessTaskHandler = StepProcess
