"""Run a compiled pipeline on this machine through `kfp.local`, in processes.

Started as a program of its own (`python -m components.orchestration.kubeflow.local`), so that what
the steps and kfp print is kept in a log, and what matters of it is shown.
"""

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from components.core.errors import PipelineError
from components.core.kubeflow import METRICS, read_outcome
from components.core.process import end_with_parent
from components.core.receipts import read_receipt
from components.core.state import VARIABLE as STATE_VARIABLE
from components.orchestration.home import project_home
from components.orchestration.telling import INDENT, tell, tell_to
from components.orchestration.warm import VARIABLE as WARM_VARIABLE
from components.orchestration.warm import warm_process
from pixclip.data.layout import RECEIPT_NAME

YAML_NAME, LOG_NAME, FAILURE_NAME = "pipeline.yaml", "log.txt", "failure.txt"
STATE_FOLDER, CACHE_FOLDER = "state", "cache"


class PipelineFailedError(PipelineError):
    """A task of the pipeline failed; the log says why."""


@dataclass(frozen=True)
class LocalRun:
    """A finished run: its folder, and where each artifact lies."""

    folder: Path
    artifacts: dict[str, Path]


def run_local(text: str, root: Path, say: Callable[[str], None]) -> LocalRun:
    """Run a compiled pipeline below `root`; equal work of earlier runs there is not repeated.

    Raises:
        PipelineFailedError: names the failed task and the log.
    """
    folder = root / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    (folder / YAML_NAME).write_text(text, encoding="utf-8")
    environment = {
        **os.environ,
        STATE_VARIABLE: str(root / STATE_FOLDER),
        "PIXCLIP_HOME": str(project_home()),
        "PYTHONUTF8": "1",
    }
    reading, writing = os.pipe()
    with (
        open(reading, encoding="utf-8", errors="replace") as told,
        (folder / LOG_NAME).open("wb") as log,
        warm_process(environment) as warm,
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder / YAML_NAME), str(writing)],
            cwd=project_home(),
            env={**environment, WARM_VARIABLE: str(warm)},
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[writing, warm],
            preexec_fn=end_with_parent,
        ) as process,
    ):
        os.close(writing)
        for line in told:
            say(line.rstrip("\n"))
    if process.returncode:
        failure = folder / FAILURE_NAME
        where = failure.read_text(encoding="utf-8") if failure.exists() else ""
        raise PipelineFailedError(
            f"the pipeline failed{where}; whole log: {folder / LOG_NAME}. "
            "A rerun repeats nothing that was done"
        )
    return LocalRun(folder, find_artifacts(folder))


def find_artifacts(folder: Path) -> dict[str, Path]:
    """Artifact -> its folder, the last one made if several tasks made one of that name."""
    receipts = sorted(folder.glob(f"*/*/*/{RECEIPT_NAME}"), key=lambda path: path.stat().st_mtime)
    found = {}
    for path in receipts:
        if read_receipt(path.parent):
            found[path.parent.name] = path.parent
    return found


@click.command()
@click.argument("pipeline", type=click.Path(exists=True, path_type=Path))
@click.argument("pipe", type=int)
def main(pipeline: Path, pipe: int) -> None:
    """Run a compiled pipeline; its artifacts go beside the file, what matters to the pipe."""
    from kfp import components, local

    from components.orchestration.processes import start_steps_here

    tell_to(pipe)
    # Of images without "python" in their names, and of resources, which a process does not get.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="kfp")
    warnings.filterwarnings("ignore", category=UserWarning, module="kfp")
    folder = pipeline.parent
    start_steps_here(told_task(folder / FAILURE_NAME))
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder),
        workspace_root=str(folder / "workspace"),  # which kfp removes
        enable_caching=True,
        cache_root=str(folder.parent / CACHE_FOLDER),
    )
    try:
        components.load_component_from_file(str(pipeline))()
    except RuntimeError as error:  # kfp's, which names the task
        sys.exit(str(error))


def told_task(failure: Path) -> Any:
    """A handler of tasks that tells their names and time, and writes down why one failed."""
    from kfp.local.status import Status

    from components.orchestration.processes import StepProcess, value_of

    class ToldTask(StepProcess):
        def run(self) -> Any:
            given = json.loads(value_of("--executor_input", self.full_command))["outputs"]
            name, started = Path(given["outputFile"]).parent.name, time.monotonic()
            tell(name)
            status = super().run()
            seconds = f"{time.monotonic() - started:.1f} s"
            if status != Status.FAILURE:
                tell(f"{INDENT}{seconds}")
                return status
            tell(f"{INDENT}failed after {seconds}")
            failure.write_text(f" at {name}: {_reason(given)}", encoding="utf-8")
            return status

    return ToldTask


def _reason(outputs: Mapping[str, Any]) -> str:
    """Why a task failed, as it has written down in its metrics."""
    try:
        read_outcome(Path(outputs["artifacts"][METRICS]["artifacts"][0]["uri"]))
    except PipelineError as error:
        return f"{type(error).__name__}: {error}"
    except (OSError, KeyError, ValueError):
        pass
    return "it ended without an outcome"


if __name__ == "__main__":
    main()
